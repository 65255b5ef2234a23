"""Where built things are kept: outside the checkout, under a name that changes with what they are built from."""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster.errors import UnavailableError

RECIPE = Path(__file__).parent


def home() -> Path:
    """The folder of all caches and of the running cluster's kubeconfig, made if it is missing."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = caches / "swarm-training" / "cluster"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnavailableError(f"cannot write to {folder} ({error.strerror}): set XDG_CACHE_HOME") from error
    return folder


def fingerprint(parts: Iterable[Path | str]) -> str:
    """Twelve hex digits that change with the names and bytes of files (folders: all files below) and with strings."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(b"text\0" + part.encode())
            continue
        files = sorted(path for path in part.rglob("*") if path.is_file()) if part.is_dir() else [part]
        for file in files:
            digest.update(f"file\0{file.relative_to(part.parent)}\0{file.stat().st_size}\0".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


@contextmanager
def lock(name: str) -> Iterator[None]:
    """One process at a time; another one waits."""
    with (home() / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def need_room(gigabytes: int, what: str) -> None:
    """Raise UnavailableError unless the disk of the caches has room."""
    free = shutil.disk_usage(home()).free // 10**9
    if free < gigabytes:
        raise UnavailableError(
            f"{free} GB free under {home()}, about {gigabytes} GB needed for {what}: "
            "free some space or put the caches on another disk with XDG_CACHE_HOME"
        )
