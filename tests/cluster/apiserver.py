"""A bare API server, for tests that need no kubelet: etcd and kube-apiserver in seconds, on free ports of the loopback.

With `controllers` Kubernetes' own controllers run (garbage collection, namespaces, service accounts); with `nodes`
also its scheduler and kwok, whose nodes run every pod by saying so.
"""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from cluster import binaries, console
from cluster.errors import CommandError
from cluster.versions import KUBERNETES

_STAGES = Path(__file__).parent / "kwok.yaml"
_CONTROLLERS = (
    *("garbage-collector-controller", "namespace-controller", "pod-garbage-collector-controller"),
    *("serviceaccount-controller", "disruption-controller"),
)
_AUDIT = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"]}


class ApiServer:
    """A context in which an API server with RBAC answers; everything of it is gone afterwards.

    Args:
        users: names that get a token and no rights, for requests that can be told apart (`requests_by_user`).
        controllers: whether Kubernetes' controllers run. Without them every namespace lacks its service account, so
            pods are admitted without one.
        nodes: how many nodes kwok shows; more than 0 starts the controllers too.
        audit: whether requests are counted.

    Raises:
        UnavailableError: the programs cannot be built here.
        CommandError: a program ended early.
    """

    def __init__(
        self, *, users: Sequence[str] = (), controllers: bool = False, nodes: int = 0, audit: bool = False
    ) -> None:
        self.users = tuple(users)
        self.url = ""
        self._controllers = controllers or nodes > 0
        self._nodes = nodes
        self._audit = audit
        self._stack = ExitStack()
        self._folder = Path()

    def __enter__(self) -> "ApiServer":
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-apiserver-")))
            self._certificates()
            etcd = self._start_etcd(stack)
            self._start_api_server(stack, etcd)
            if self._controllers:
                self._start_controllers(stack)
            if self._nodes:
                self._start_nodes(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self._folder / "admin.kubeconfig"

    def kubeconfig_of_user(self, name: str) -> Path:
        """One of `users`."""
        return self._write_kubeconfig(name, f"token-of-{name}")

    def kubeconfig_of(self, namespace: str, service_account: str) -> Path:
        """A ServiceAccount's, by a token of one hour; namespace and account must exist."""
        token = self.kubectl("create", "token", service_account, f"--namespace={namespace}", "--duration=1h").strip()
        return self._write_kubeconfig(f"{namespace}.{service_account}", token)

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        """The output of `kubectl ...` as administrator; raises CommandError."""
        command = [binaries.path("kubectl"), f"--kubeconfig={self.kubeconfig}", *arguments]
        return console.output(command, stdin=stdin, timeout=timeout)

    def requests_by_user(self) -> Counter[tuple[str, str]]:
        """How often each (user, verb) was answered; needs `audit`."""
        events = map(json.loads, (self._folder / "audit.log").read_text().splitlines())
        return Counter((event["user"]["username"], event["verb"]) for event in events)

    def log_of(self, program: str) -> str:
        """What a program wrote so far."""
        return (self._folder / f"{program}.log").read_text()

    def _certificates(self) -> None:
        phases = ("ca", "apiserver", "sa")
        for phase in phases:
            command: list[str | Path] = [binaries.path("kubeadm"), "init", "phase", "certs", phase]
            command += [f"--cert-dir={self._folder / 'pki'}"]
            command += [f"--kubernetes-version={KUBERNETES}"] if phase != "sa" else []
            command += ["--apiserver-advertise-address=127.0.0.1"] if phase == "apiserver" else []
            console.output(command)

    def _start_etcd(self, stack: ExitStack) -> str:
        client, peer = (f"http://127.0.0.1:{port}" for port in _free_ports(2))
        stack.enter_context(
            self._process(
                "etcd",
                f"--data-dir={self._folder / 'etcd'}",
                f"--listen-client-urls={client}",
                f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
                "--unsafe-no-fsync=true",
            )
        )
        return client

    def _start_api_server(self, stack: ExitStack, etcd: str) -> None:
        (port,) = _free_ports(1)
        self.url = f"https://127.0.0.1:{port}"
        pki = self._folder / "pki"
        tokens = self._folder / "tokens"
        tokens.write_text(
            "admin-token,admin,admin,system:masters\n" + "".join(f"token-of-{name},{name},{name}\n" for name in self.users)
        )
        self._write_kubeconfig("admin", "admin-token")
        flags = [
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={port}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=Node,RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
        ]
        if not self._controllers:
            flags.append("--disable-admission-plugins=ServiceAccount")
        if self._audit:
            policy = self._folder / "audit.json"
            policy.write_text(json.dumps({**_AUDIT, "rules": [{"level": "Metadata"}]}))
            flags += [f"--audit-policy-file={policy}", f"--audit-log-path={self._folder / 'audit.log'}"]
        server = stack.enter_context(self._process("kube-apiserver", *flags))
        self._wait_for("kube-apiserver", server, "get", "--raw=/readyz")

    def _start_controllers(self, stack: ExitStack) -> None:
        (port,) = _free_ports(1)
        pki = self._folder / "pki"
        stack.enter_context(
            self._process(
                "kube-controller-manager",
                f"--kubeconfig={self.kubeconfig}",
                f"--controllers={','.join(_CONTROLLERS)}",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                f"--secure-port={port}",
                f"--service-account-private-key-file={pki / 'sa.key'}",
                f"--root-ca-file={pki / 'ca.crt'}",
            )
        )
