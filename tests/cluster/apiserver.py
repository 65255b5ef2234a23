"""A bare API server, for tests that need no kubelet: etcd and kube-apiserver in seconds, on free ports of the loopback.

With `controllers` Kubernetes' own controllers run (garbage collection, namespaces, service accounts, disruptions);
with `nodes` also its scheduler, and kwok, whose nodes run every pod by saying so.
"""

import base64
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from cluster import binaries, console
from cluster.errors import CommandError
from cluster.processes import free_ports, running
from cluster.versions import KUBERNETES

_STAGES = Path(__file__).parent / "kwok.yaml"
_CONTROLLERS = (
    *("garbage-collector-controller", "namespace-controller", "serviceaccount-controller", "disruption-controller"),
    *("resourcequota-controller", "persistentvolume-binder-controller"),
)
_HASTE = ("--kube-api-qps=500", "--kube-api-burst=1000")
"""By default it takes minutes to bind or to collect the pods of a large job."""


class ApiServer:
    """A context in which an API server with RBAC answers; everything of it is gone afterwards.

    Args:
        users: names that get a token and no rights, for requests that can be told apart (`requests_by_user`).
        controllers: whether Kubernetes' controllers run. Without them no namespace has a service account, so pods are
            admitted without one.
        nodes: how many nodes kwok shows; more than 0 starts the controllers too.
        audit: whether requests are recorded.

    Raises:
        UnavailableError: the programs cannot be built here.
        CommandError: a program ended early.
    """

    def __init__(
        self, *, users: Sequence[str] = (), controllers: bool = False, nodes: int = 0, audit: bool = False
    ) -> None:
        self.url = ""
        self._users = tuple(users)
        self._controllers = controllers or nodes > 0
        self._nodes = nodes
        self._audit = audit
        self._stack = ExitStack()
        self._folder = Path()

    def __enter__(self) -> "ApiServer":
        with ExitStack() as stack:
            self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="swarm-apiserver-")))
            self._stack = stack
            self._make_certificates()
            self._start_api_server(self._start_etcd())
            if self._controllers:
                self._start_controllers()
            if self._nodes:
                self._start_nodes()
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
        """How many requests each (user, verb) made so far; needs `audit`."""
        with (self._folder / "audit.log").open() as lines:
            return Counter((event["user"]["username"], event["verb"]) for event in map(json.loads, lines))

    def log_of(self, program: str) -> str:
        """What a program wrote so far."""
        return (self._folder / f"{program}.log").read_text()

    def _start(self, program: str, *flags: str) -> subprocess.Popen[bytes]:
        command = [str(binaries.path(program)), *flags]
        return self._stack.enter_context(running(command, self._folder / f"{program}.log"))

    def _make_certificates(self) -> None:
        version = f"--kubernetes-version={KUBERNETES}"
        # kubeadm wants an address that is not the loopback's; nobody uses the Service's here.
        addresses = ("--apiserver-advertise-address=10.98.0.1", "--apiserver-cert-extra-sans=127.0.0.1")
        phases: dict[str, tuple[str, ...]] = {"ca": (version,), "apiserver": (version, *addresses), "sa": ()}
        for phase, flags in phases.items():
            command = [str(binaries.path("kubeadm")), "init", "phase", "certs", phase, *flags]
            console.output([*command, f"--cert-dir={self._folder / 'pki'}"])

    def _start_etcd(self) -> str:
        client, peer = (f"http://127.0.0.1:{port}" for port in free_ports(2))
        self._start(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync=true",
        )
        return client

    def _start_api_server(self, etcd: str) -> None:
        (port,) = free_ports(1)
        self.url = f"https://127.0.0.1:{port}"
        pki = self._folder / "pki"
        tokens = self._folder / "tokens"
        users = "".join(f"token-of-{name},{name},{name}\n" for name in self._users)
        tokens.write_text(f"token-of-admin,admin,admin,system:masters\n{users}")
        flags = [
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--secure-port={port}",
            f"--tls-cert-file={pki / 'apiserver.crt'}",
            f"--tls-private-key-file={pki / 'apiserver.key'}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.98.0.0/16",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={pki / 'sa.pub'}",
            f"--service-account-signing-key-file={pki / 'sa.key'}",
        ]
        if not self._controllers:
            flags += ["--disable-admission-plugins=ServiceAccount"]
        if self._nodes:  # the controller that would take this taint off again does not run
            flags += ["--disable-admission-plugins=TaintNodesByCondition"]
        if self._audit:
            policy = self._folder / "audit-policy.json"
            policy.write_text(
                '{"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"],'
                ' "rules": [{"level": "Metadata"}]}'
            )
            flags += [f"--audit-policy-file={policy}", f"--audit-log-path={self._folder / 'audit.log'}"]
        server = self._start("kube-apiserver", *flags)
        self._write_kubeconfig("admin", "token-of-admin")
        self._wait_for_success("kube-apiserver", server, "get", "--raw=/readyz")

    def _start_controllers(self) -> None:
        (port,) = free_ports(1)
        pki = self._folder / "pki"
        manager = self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--controllers={','.join(_CONTROLLERS)}",
            "--leader-elect=false",
            "--bind-address=127.0.0.1",
            f"--secure-port={port}",
            f"--root-ca-file={pki / 'ca.crt'}",
            *_HASTE,
        )
        self._wait_for_success("kube-controller-manager", manager, "get", "serviceaccount", "default")

    def _start_nodes(self) -> None:
        port, other = free_ports(2)
        scheduler = [f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1"]
        self._start("kube-scheduler", *scheduler, f"--secure-port={port}", *_HASTE)
        kwok = [f"--kubeconfig={self.kubeconfig}", f"--config={_STAGES}", "--manage-all-nodes=true"]
        # Pods get addresses at which whoever stands in for them can answer, beside another such server.
        kwok += [f"--cidr=127.{64 + os.getpid() % 63}.0.1/16"]
        process = self._start("kwok", *kwok, f"--server-address=127.0.0.1:{other}")
        nodes = [
            {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
            for name in (f"node-{number}" for number in range(self._nodes))
        ]
        self.kubectl("create", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": nodes}))
        self._wait_for_success("kwok", process, "wait", "--for=condition=Ready", "node", "--all", "--timeout=30s")

    def _wait_for_success(
        self, program: str, process: subprocess.Popen[bytes], *arguments: str, seconds: float = 60
    ) -> None:
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.kubectl(*arguments)
            except CommandError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    tail = "\n".join(self.log_of(program).splitlines()[-20:])
                    raise CommandError([program], process.returncode or 124, f"{error}\n{tail}") from error
                time.sleep(0.1)
            else:
                return

    def _write_kubeconfig(self, name: str, token: str) -> Path:
        authority = base64.b64encode((self._folder / "pki" / "ca.crt").read_bytes()).decode()
        cluster = {"server": self.url, "certificate-authority-data": authority}
        path = self._folder / f"{name}.kubeconfig"
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": name,
                    "contexts": [{"name": name, "context": {"cluster": "bare", "user": name}}],
                    "clusters": [{"name": "bare", "cluster": cluster}],
                    "users": [{"name": name, "user": {"token": token}}],
                }
            )
        )
        return path
