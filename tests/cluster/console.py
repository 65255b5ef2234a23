"""Runs programs, and shows people what is being done, how long it takes and how long it usually takes."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster import cache
from cluster.errors import CommandError

Argument = str | Path


def log() -> Path:
    """The file that holds what the programs of all steps said."""
    return cache.home() / "log"


@contextmanager
def step(what: str, usual: float | None = None) -> Iterator[None]:
    """Say on stderr what is being done, then how long it took.

    Args:
        what: as in "cluster: building kubelet".
        usual: seconds it takes on two cores, said in advance.
    """
    start = time.monotonic()
    terminal = sys.stderr.isatty()
    hint = f" (about {_span(usual)})" if usual else ""
    done = threading.Event()

    def tick() -> None:
        while not done.wait(1 if terminal else 30):
            elapsed = _span(time.monotonic() - start)
            if terminal:
                print(f"\r\033[Kcluster: {what}{hint} ... {elapsed}", end="", file=sys.stderr, flush=True)
            else:
                print(f"cluster:   {what}: {elapsed} so far", file=sys.stderr, flush=True)

    print(f"cluster: {what}{hint} ...", end="" if terminal else "\n", file=sys.stderr, flush=True)
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    failed = True
    try:
        yield
        failed = False
    finally:
        done.set()
        ticker.join()
        end = f"cluster: {what}: {'FAILED after ' if failed else ''}{_span(time.monotonic() - start)}"
        print(("\r\033[K" if terminal else "") + end, file=sys.stderr, flush=True)


def logged(command: Sequence[Argument], *, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run a program with its output in the log.

    Raises:
        CommandError: it failed; with the last lines that it wrote.
    """
    words = [str(word) for word in command]
    with log().open("a+") as file:
        print(f"\n== {' '.join(words)}", file=file, flush=True)
        start = file.tell()
        done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=env, cwd=cwd, check=False)
        if done.returncode:
            file.seek(start)
            tail = file.read().splitlines()[-20:]
            raise CommandError(words, done.returncode, "\n".join([*tail, f"all of it is in {log()}"]))


def output(
    command: Sequence[Argument],
    *,
    env: Mapping[str, str] | None = None,
    stdin: str | None = None,
    timeout: float | None = 60,
) -> str:
    """What a program writes to its standard output.

    Raises:
        CommandError: it failed, or took longer than `timeout` seconds (status 124).
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, input=stdin or "", capture_output=True, text=True, env=env, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise CommandError(words, 124, f"no end after {timeout} s") from error
    if done.returncode:
        raise CommandError(words, done.returncode, done.stdout + done.stderr)
    return done.stdout


def succeeds(command: Sequence[Argument], *, env: Mapping[str, str] | None = None, timeout: float = 20) -> bool:
    """Whether a program exists and ends with 0 in time."""
    try:
        output(command, env=env, timeout=timeout)
    except (CommandError, OSError):
        return False
    return True


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
