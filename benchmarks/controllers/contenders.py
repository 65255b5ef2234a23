"""Who is measured: three programs that do the same for the jobs of their own namespace, each as its own user."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.apiserver import ApiServer
from cluster.processes import running

BARE, KOPF, OURS = "bare", "kopf", "ours"
"""Namespace and user of each."""
NAMES = {BARE: "bare asyncio client", KOPF: "smallest kopf operator", OURS: "swarm-operator"}

_FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Contender:
    """One of them, running."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text()[-4000:]

    @property
    def cpu_seconds(self) -> float:
        """Of all its threads, so far."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def mebibytes(self, *, peak: bool = False) -> float:
        """Resident, now or at the most so far."""
        wanted = "VmHWM" if peak else "VmRSS"
        return (
            next(int(line.split()[1]) for line in self._proc("status").splitlines() if line.startswith(wanted)) / 1024
        )

    def _proc(self, what: str) -> str:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended")
        return Path(f"/proc/{self.process.pid}/{what}").read_text()


@contextlib.contextmanager
def all_running(server: ApiServer, key: Path, folder: Path) -> Iterator[dict[str, Contender]]:
    """For the duration all of them run; key: file with the operator's key; folder: for their logs."""
    for name in NAMES:
        server.kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", f"--user={name}")
        server.kubectl("create", "namespace", name)
    with contextlib.ExitStack() as stack:
        found = {}
        for name in NAMES:
            command = [sys.executable, *_arguments(name, server.kubeconfig_of_user(name), key)]
            log = folder / f"{name}.log"
            found[name] = Contender(name, stack.enter_context(running(command, log)), log)
        try:
            yield found
        except RuntimeError as error:
            raise RuntimeError("\n".join(f"-- {name}\n{each.said}" for name, each in found.items())) from error


def _arguments(name: str, kubeconfig: Path, key: Path) -> list[str]:
    if name != OURS:
        script = {BARE: "bare.py", KOPF: "smallest.py"}[name]
        return [str(_FOLDER / script), str(kubeconfig), name]
    ports = ["--metrics-port=0", "--liveness-port=0"]
    options = ["--namespace", name, "--key-file", str(key), *ports, "--reports=direct", "--log-level=warning"]
    return ["-m", "swarm_operator", "--kubeconfig", str(kubeconfig), *options]
