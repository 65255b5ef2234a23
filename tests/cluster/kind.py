"""A kind cluster: one control plane, two workers that can be killed, frozen, cut off and brought back."""

import contextlib
import json
import os
import shutil
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster import binaries, cache, console, docker, dockerd, images
from cluster.docker import Docker, Mode
from cluster.errors import CommandError

NAME = "swarm-training"

_WORKERS = 2
_LABEL = f"io.x-k8s.kind.cluster={NAME}"
# Own subnets and an own bridge: neither another kind cluster nor its network is ours to touch.
_NETWORK = {"KIND_EXPERIMENTAL_DOCKER_NETWORK": NAME, "KIND_EXPERIMENTAL_PROVIDER": "docker"}
_SUBNETS = {"podSubnet": "10.246.0.0/16", "serviceSubnet": "10.98.0.0/16"}


@dataclass(frozen=True)
class Mount:
    """A folder of this machine that the workers show read-only, so that pods reach it as a hostPath volume."""

    host: Path
    node: str


def python_environment() -> Mount:
    """The packages of this interpreter, torch among them, for pods of a slim image of the same Python version."""
    return Mount(Path(sysconfig.get_path("purelib")), "/opt/site-packages")


@dataclass(frozen=True)
class Cluster:
    """A running cluster. Its methods raise CommandError when a program fails."""

    docker: Docker
    kubeconfig: Path

    @property
    def programs(self) -> list[Path]:
        """Folders for PATH, with `kubectl`, `helm`, `kind` and `docker` that fit."""
        return [binaries.folder(), dockerd.client()] if self.docker.mode is Mode.OFFLINE else [binaries.folder()]

    @property
    def environment(self) -> dict[str, str]:
        """What `kubectl`, `helm`, `docker` and `kind` need in their environment to mean this cluster."""
        env = {**self.docker.environment, **_NETWORK, "KUBECONFIG": str(self.kubeconfig)}
        path = [env["PATH"], str(binaries.folder())]
        # A user's own tools win, but without a registry none but ours is known to fit the node image.
        env["PATH"] = os.pathsep.join(path if self.docker.mode is Mode.REGISTRY else reversed(path))
        return env

    @property
    def control_plane(self) -> str:
        """The name of the node that no test may harm."""
        return f"{NAME}-control-plane"

    @property
    def workers(self) -> list[str]:
        """Names of the workers."""
        return [f"{NAME}-worker{'' if number == 1 else number}" for number in range(1, _WORKERS + 1)]

    def kubectl(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        """The output of `kubectl ...`."""
        return console.output(["kubectl", *arguments], env=self.environment, stdin=stdin, timeout=timeout)

    def load_image(self, *tags: str, nodes: Sequence[str] = ()) -> None:
        """Bring images of the engine onto nodes, by default all."""
        self._kind("load", "docker-image", *tags, *self._only(nodes))

    def load_archive(self, archive: Path, *, nodes: Sequence[str] = ()) -> None:
        """Bring the images of a `docker save` file onto nodes, by default all."""
        self._kind("load", "image-archive", archive, *self._only(nodes))

    def stop(self, node: str) -> None:
        """Shut a node down, as a drained machine is: its containers get SIGTERM. Kubernetes notices after 40 s."""
        self.docker("stop", node)

    def kill(self, node: str) -> None:
        """Pull a node's plug."""
        self.docker("kill", node)

    def start(self, node: str) -> None:
        """Bring back a node that was stopped or killed; pods that were not replaced run again."""
        self.docker("start", node)

    def pause(self, node: str) -> None:
        """Freeze all processes of a node."""
        self.docker("pause", node)

    def unpause(self, node: str) -> None:
        """Let a frozen node go on."""
        self.docker("unpause", node)

    def disconnect(self, node: str) -> None:
        """Lose every packet from and to a node; its processes and connections live on, as behind a broken switch."""
        self.docker("exec", node, "sh", "-ec", _cut("-I"))

    def reconnect(self, node: str) -> None:
        """End what `disconnect` did."""
        self.docker("exec", node, "sh", "-ec", _cut("-D"))

    def add_gpus(self, node: str, count: int) -> None:
        """Let a node offer GPUs that it does not have: the scheduler counts them, nothing else knows of them."""
        patch = [{"op": "add", "path": "/status/capacity/nvidia.com~1gpu", "value": str(count)}]
        self.kubectl("patch", "node", node, "--subresource=status", "--type=json", f"--patch={json.dumps(patch)}")

    def wait_until_ready(self, seconds: float = 240) -> None:
        """Wait for all nodes, and for what kind runs on them."""
        deadline = time.monotonic() + seconds
        self._wait(deadline, "node", "--all")
        for namespace in ("kube-system", "local-path-storage"):
            alive = "--field-selector=status.phase!=Succeeded"  # those that provision a volume end
            self._wait(deadline, "pod", alive, f"--namespace={namespace}")

    def keep_name_servers(self) -> None:
        """Let them run on no worker: a swarm that loses one of two with its node asks the dead one for 40 s yet."""
        spec = {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}
        patch = json.dumps({"spec": {"template": {"spec": spec}}})
        where = "--namespace=kube-system"
        self.kubectl("patch", "deployment", "coredns", where, f"--patch={patch}")
        # Whoever waits for pods must not find those that the patch replaces.
        self.kubectl("rollout", "status", "deployment/coredns", where, "--timeout=120s", timeout=130)

    def _wait(self, deadline: float, *what: str) -> None:
        while True:  # kubectl wait fails where a pod that it waits for is replaced, or where there is none yet
            left = max(deadline - time.monotonic(), 1)
            try:
                self.kubectl("wait", "--for=condition=Ready", f"--timeout={left:.0f}s", *what, timeout=left + 10)
            except CommandError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
            else:
                return

    def _kind(self, *arguments: str | Path) -> None:
        console.logged(["kind", *arguments, f"--name={NAME}"], env=self.environment)

    @staticmethod
    def _only(nodes: Sequence[str]) -> list[str]:
        return [f"--nodes={','.join(nodes)}"] if nodes else []


def current() -> Cluster | None:
    """The cluster that `up` made, if it runs."""
    engine = docker.running()
    if engine is None or not _kubeconfig().exists():
        return None
    cluster = Cluster(engine, _kubeconfig())
    ready = console.succeeds(["kubectl", "get", "--raw=/readyz"], env=cluster.environment, timeout=10)
    return cluster if ready else None


def up(mounts: Sequence[Mount] = ()) -> Cluster:
    """The running cluster, made first if there is none. About half a minute with warm caches.

    Args:
        mounts: folders that the workers are to show.

    Raises:
        UnavailableError: no cluster can be had on this machine.
        CommandError: a step failed, or a cluster runs that lacks a mount.
    """
    with cache.lock("cluster"):
        cluster = current()
        if cluster is not None:
            _need_mounts(cluster, mounts)
            return cluster
        engine = docker.start()
        image = images.ensure(engine) if engine.mode is Mode.OFFLINE else None
        _need_tools(engine)
        cluster = Cluster(engine, _kubeconfig())
        _remove(cluster)
        with _api_server_port(engine) as port, console.step("creating the cluster", 35):
            config = cache.home() / "kind.json"
            config.write_text(json.dumps(_config(engine, mounts, port), indent=1))
            own_image = ["--image", image] if image else []
            cluster._kind("create", "cluster", f"--config={config}", f"--kubeconfig={_kubeconfig()}", *own_image)
        with console.step("waiting for nodes and system pods", 10):
            cluster.keep_name_servers()
            cluster.wait_until_ready()
        return cluster


def down() -> None:
    """Remove every trace of the cluster, and of the engine if it is ours; caches stay."""
    with cache.lock("cluster"):
        engine = docker.running()
        if engine is not None:
            with console.step("removing the cluster", 3):
                _remove(Cluster(engine, _kubeconfig()))
        dockerd.stop()
        for name in ("kubeconfig", "kind.json"):
            (cache.home() / name).unlink(missing_ok=True)


def _remove(cluster: Cluster) -> None:
    engine = cluster.docker
    nodes = engine("ps", "--all", "--quiet", f"--filter=label={_LABEL}").split()
    if nodes:
        engine("rm", "--force", "--volumes", *nodes)
    if engine("network", "ls", "--quiet", f"--filter=name=^{NAME}$").split():
        engine("network", "rm", NAME)


def _config(engine: Docker, mounts: Sequence[Mount], port: int) -> dict[str, Any]:
    shown = [{"hostPath": str(mount.host), "containerPath": mount.node, "readOnly": True} for mount in mounts]
    networking: dict[str, object] = {**_SUBNETS}
    if engine.mode is Mode.OFFLINE:
        networking |= {"disableDefaultCNI": True, "apiServerPort": port}
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": networking,
        "nodes": [{"role": "control-plane"}, *[{"role": "worker", "extraMounts": shown} for _ in range(_WORKERS)]],
    }


@contextlib.contextmanager
def _api_server_port(engine: Docker) -> Iterator[int]:
    """The same port is the API server's in the engine's network and the way there on this machine."""
    if engine.mode is Mode.REGISTRY:
        yield 0
        return
    with dockerd.listen_outside() as listener:
        dockerd.forward(listener)
        yield listener.getsockname()[1]


def _need_tools(engine: Docker) -> None:
    wanted = ("kind", "kubectl", "helm")
    binaries.build([name for name in wanted if engine.mode is Mode.OFFLINE or not shutil.which(name)])


def _need_mounts(cluster: Cluster, mounts: Sequence[Mount]) -> None:
    found: list[Mapping[str, Any]] = json.loads(
        cluster.docker("inspect", "--format={{json .Mounts}}", cluster.workers[0])
    )
    there = {(mount["Source"], mount["Destination"]) for mount in found}
    missing = [mount for mount in mounts if (str(mount.host), mount.node) not in there]
    if missing:
        raise CommandError(["cluster", "up"], 1, f"the running cluster does not show {missing[0].host}: `down` first")


def _cut(action: str) -> str:
    # Both protocols: a kubelet that is cut off from one goes on over the other.
    rules = (f"-t raw {action} PREROUTING -i eth0 -j DROP", f"-t mangle {action} POSTROUTING -o eth0 -j DROP")
    return "\n".join(f"{tool} -w {rule}" for tool in ("iptables", "ip6tables") for rule in rules)


def _kubeconfig() -> Path:
    return cache.home() / "kubeconfig"
