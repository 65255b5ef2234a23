"""A Docker engine of our own, in namespaces of its own.

Its network has a loopback and nothing else: no packet of a container can leave the machine. Its processes end with the
first of them and its mounts with the last, so that nothing is left behind however it ends; only images stay.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cluster import cache, console, debian, relay
from cluster.errors import UnavailableError

_CAP_SYS_RESOURCE = 24
_SOCKET_PATH_LIMIT = 107
# What the engine and its containerd write outside their data goes into memory, so that none of it stays; nor do they
# find there what other engines left.
_BOOT = """set -e
mount -t tmpfs tmpfs /run
for folder in etc opt; do
    mkdir -p /run/own/$folder/upper /run/own/$folder/work
    mount -t overlay -o lowerdir=/$folder,upperdir=/run/own/$folder/upper,workdir=/run/own/$folder/work overlay /$folder
done
ip link set lo up
exec tini -- dockerd "$@"
"""


def need_rights() -> None:
    """Raise UnavailableError where this process may not start an engine."""
    if sys.platform != "linux":
        raise UnavailableError("a cluster needs a Docker engine that reaches a container registry")
    if os.geteuid() != 0:
        raise UnavailableError(
            "a cluster needs a Docker engine that reaches a container registry, or root (to start an engine and to "
            "build the images without a registry): give this user one of them"
        )


def environment() -> dict[str, str]:
    """The environment in which `docker` and `kind` talk to this engine."""
    own = {"DOCKER_HOST": f"unix://{_socket()}", "DOCKER_BUILDKIT": "0"}  # Debian's has no BuildKit client
    path = os.pathsep.join([str(client()), os.environ.get("PATH", os.defpath)])
    return {**os.environ, **own, "PATH": path}


def client() -> Path:
    """The folder of the `docker` that fits this engine."""
    return debian.engine() / "usr" / "bin"


def init_pid() -> int | None:
    """The first process of the running engine's namespaces; None if it does not run."""
    try:
        supervisor = int(_state().read_text())
        command = Path(f"/proc/{supervisor}/cmdline").read_bytes()
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    except (OSError, ValueError):
        return None
    return int(children[0]) if str(_socket()).encode() in command and children else None


def start() -> None:
    """Start it unless it runs; raises UnavailableError where that cannot work."""
    need_rights()
    with cache.lock("engine"):
        if init_pid() is None:
            root = debian.engine()
            with console.step("starting a Docker engine without a network", 3):
                _start(root)


def stop() -> None:
    """End it and everything that runs in it; images stay."""
    with cache.lock("engine"):
        init = init_pid()
        if init is not None:
            with console.step("stopping the Docker engine", 3):
                os.kill(init, signal.SIGTERM)
                if not _within(20, lambda: init_pid() is None):
                    os.kill(init, signal.SIGKILL)
                    _within(10, lambda: init_pid() is None)
        for file in (_state(), _socket(), _settings_file()):
            file.unlink(missing_ok=True)


def listen_outside() -> socket.socket:
    """A socket on a free port of this machine's loopback, for `forward`."""
    return socket.create_server(("127.0.0.1", 0))


def forward(listener: socket.socket) -> None:
    """Let the same port of the engine's loopback answer on the socket, until the engine ends; see relay.py."""
    init = init_pid()
    assert init is not None
    descriptor, port = listener.fileno(), listener.getsockname()[1]
    relay = [sys.executable, str(cache.RECIPE / "relay.py"), str(descriptor), str(port)]
    with console.log().open("a") as log:
        child = subprocess.Popen(
            ["nsenter", f"--target={init}", "--net", "--pid", "--", *relay],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[descriptor],
            start_new_session=True,
            cwd="/",
        )
    _let_go(child)


def _start(root: Path) -> None:
    if len(str(_socket())) > _SOCKET_PATH_LIMIT:
        raise UnavailableError(f"{_socket()} is too long for a socket: set XDG_CACHE_HOME to a shorter path")
    for program in ("unshare", "nsenter", "ip"):
        if not shutil.which(program):
            raise UnavailableError(f"{program} is missing: install Debian's util-linux and iproute2")
    _settings_file().write_text(json.dumps(_settings()))
    namespaces = ["unshare", "--net", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child"]
    with (cache.home() / "dockerd.log").open("w") as log:
        supervisor = subprocess.Popen(
            [*namespaces, "sh", "-c", _BOOT, "sh", f"--config-file={_settings_file()}", f"--host=unix://{_socket()}"],
            env=_with_libraries(root),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    _state().write_text(str(supervisor.pid))

    env = environment()

    def answers() -> bool:
        return console.succeeds(["docker", "version"], env=env) or supervisor.poll() is not None

    if not _within(60, answers) or supervisor.poll() is not None:
        tail = Path(log.name).read_text().splitlines()[-15:]
        with suppress(ProcessLookupError):
            supervisor.kill()
        supervisor.wait()
        raise UnavailableError("\n".join(["this machine does not let a Docker engine start; its last words:", *tail]))
    _let_go(supervisor)


def _let_go(child: subprocess.Popen[bytes]) -> None:
    child.returncode = 0  # it lives longer than this process, and Python would complain of that


def _with_libraries(root: Path) -> dict[str, str]:
    libraries = [folder for lib in ("lib", "usr/lib") for folder in (root / lib).glob("*-linux-gnu")]
    programs = [
        root / "usr/sbin",
        root / "usr/bin",
        os.environ.get("PATH", ""),
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ]
    return {
        **os.environ,
        "PATH": os.pathsep.join(map(str, programs)),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "XTABLES_LIBDIR": os.pathsep.join(str(folder / "xtables") for folder in libraries),
    }


def _settings() -> dict[str, object]:
    settings: dict[str, object] = {
        "data-root": str(cache.home() / "docker"),
        "bip": f"{relay.NAME_SERVER}/16",
        "dns": [relay.NAME_SERVER],
    }
    if not _may_use(_CAP_SYS_RESOURCE):
        settings["runtimes"] = {"lesser": {"path": str(cache.RECIPE / "runc-without-sys-resource")}}
        settings["default-runtime"] = "lesser"
    return settings


def _may_use(capability: int) -> bool:
    status = Path("/proc/self/status").read_text().splitlines()
    bounding = next(line.split()[1] for line in status if line.startswith("CapBnd:"))
    return bool(int(bounding, 16) >> capability & 1)


def _within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _socket() -> Path:
    return cache.home() / "docker.sock"


def _state() -> Path:
    return cache.home() / "dockerd.pid"


def _settings_file() -> Path:
    return cache.home() / "dockerd.json"
