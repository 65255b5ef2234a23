"""The images of a cluster without a container registry: base images, what runs in the cluster, and the node image.

A node image holds Debian's systemd and containerd, kind's own entrypoint and units (taken from its module), the
Kubernetes programs, and the images of everything that kubeadm starts. Each of those is one static program.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cluster import binaries, cache, console, debian
from cluster.docker import Docker
from cluster.errors import CommandError
from cluster.versions import CNI, CONTROL_PLANE, KUBERNETES, NODE

DEBIAN = "debian:bookworm-slim"
PYTHON = "python:3.11-slim-bookworm"

_FOLDER = cache.RECIPE / "images"
_NODE = "swarm-cluster/node"
_PROVISIONER = "swarm-cluster/local-path-provisioner:local"
_BUNDLE = Path(os.environ.get("SSL_CERT_FILE") or "/etc/ssl/certs/ca-certificates.crt")


def ensure(docker: Docker) -> str:
    """Make what is missing of the base images and the node image; the name of the latter."""
    base = cache.fingerprint([Path(debian.__file__), *([_BUNDLE] if _BUNDLE.exists() else [])])
    if not docker.has(DEBIAN, base):
        with debian.root_file_system() as root:
            _import(docker, DEBIAN, root, ['CMD ["bash"]', f"LABEL swarm.training/key={base}"])
    python = cache.fingerprint([base, _FOLDER / "python"])
    if not docker.has(PYTHON, python):
        with console.step(f"making {PYTHON}", 15):
            docker.build(_FOLDER / "python", PYTHON, key=python)
    node = f"{_NODE}:{cache.fingerprint([binaries.key(), base, Path(__file__), _FOLDER / 'node'])}"
    if not docker.has(node):
        _make_node(docker, node)
    return node


def _make_node(docker: Docker, tag: str) -> None:
    binaries.build([*CONTROL_PLANE, *NODE, *CNI, "local-path-provisioner", "kind"])
    with tempfile.TemporaryDirectory(dir=cache.home()) as folder:
        context = Path(folder)
        shutil.copytree(_FOLDER / "node", context, dirs_exist_ok=True)
        with console.step("making the images of what runs in the cluster", 30):
            _put(context / "proxy", ["kube-proxy"])
            names = _kubeadm_images()
            docker.build(context, names["kube-proxy"], target="kube-proxy")
            for program, name in names.items():
                if program != "kube-proxy":
                    _import_program(docker, name, program)
            _import_program(docker, _PROVISIONER, "local-path-provisioner")
            inside = [*names.values(), _PROVISIONER]
            docker("save", "--output", context / "images.tar", DEBIAN, *inside, timeout=600)
        with console.step("making the node image", 60):
            _fill(context, names["pause"])
            docker.build(context, tag)
            docker("rmi", *inside)  # they live on in the node image
            for old in docker("images", "--format={{.Repository}}:{{.Tag}}", _NODE).split():
                if old != tag:
                    with suppress(CommandError):  # a cluster runs from it
                        docker("rmi", old)
            docker("image", "prune", "--force", "--filter=label=swarm.training/part=node")


def _kubeadm_images() -> dict[str, str]:
    """The names that kubeadm will ask for, by program."""
    wanted = console.output([binaries.path("kubeadm"), "config", "images", "list", "--kubernetes-version", KUBERNETES])
    names = {name.rpartition("/")[2].partition(":")[0]: name for name in wanted.split()}
    if set(names) != set(CONTROL_PLANE):
        raise CommandError(["kubeadm", "config", "images", "list"], 0, f"{wanted}expected {', '.join(CONTROL_PLANE)}")
    return names


def _fill(context: Path, pause: str) -> None:
    _put(context / "bin", NODE)
    _put(context / "cni", CNI)
    (context / "version").write_text(KUBERNETES)
    kind = context / "kind"
    # Files of a module carry no modes: what lies in a folder for programs is one.
    shutil.copytree(binaries.module("kind") / "images" / "base" / "files", kind, copy_function=shutil.copyfile)
    shutil.rmtree(kind / "LICENSES")
    for path in kind.rglob("*"):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
    settings = kind / "etc" / "containerd" / "config.toml"
    lines = []
    for line in settings.read_text().splitlines():
        name = line.partition("=")[0].strip()
        if name == "sandbox_image":
            line = f'  sandbox_image = "{pause}"'
        elif name == "restrict_oom_score_adj":  # without CAP_SYS_RESOURCE nothing may lower its own score
            line = "  restrict_oom_score_adj = true"
        lines.append(line)
    settings.write_text("\n".join(lines) + "\n")


def _put(folder: Path, names: Sequence[str]) -> None:
    folder.mkdir(exist_ok=True)
    for name in names:
        os.link(binaries.path(name), folder / name)


def _import_program(docker: Docker, tag: str, program: str) -> None:
    # In the root as well as on the path: some manifests name one, some the other, some neither.
    with tempfile.TemporaryDirectory(dir=cache.home()) as folder:
        root = Path(folder)
        (root / "usr" / "local" / "bin").mkdir(parents=True)
        os.link(binaries.path(program), root / program)
        (root / "usr" / "local" / "bin" / program).symlink_to(f"/{program}")
        _import(docker, tag, root, ["ENV PATH=/usr/local/bin", f'ENTRYPOINT ["/{program}"]'])


def _import(docker: Docker, tag: str, root: Path, changes: Sequence[str]) -> None:
    command = ["docker", "import", *(word for change in changes for word in ("--change", change)), "-", tag]
    with subprocess.Popen(
        command, env=docker.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with tarfile.open(fileobj=process.stdin, mode="w|") as archive:
                archive.add(root, ".")
            process.stdin.close()
        except BrokenPipeError:
            pass
        said = process.stdout.read().decode()
    if process.returncode:
        raise CommandError(command, process.returncode, said)
