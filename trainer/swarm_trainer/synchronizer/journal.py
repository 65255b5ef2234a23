"""metrics.jsonl: what happened in the swarm, one JSON object a line, written off the event loop."""

import json
import logging
import math
import os
import queue
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

log = logging.getLogger("swarm.synchronizer")

_RETRY_SECONDS = 1.0
_MOST_LINES = 10_000
"""That wait for a disk that takes none; then the oldest are lost."""


class Journal:
    """Appends lines in the order of the calls. Without a folder it keeps nothing.

    A disk that is full or gone is warned of once, and tried again; training does not depend on it.
    """

    def __init__(self, folder: Path | None) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if folder is not None:
            self._thread = threading.Thread(target=self._run, args=(folder / "metrics.jsonl",), name="journal")
            self._thread.start()

    def note(self, kind: str, **fields: Any) -> None:
        """Add a line of this kind with the time; fields must be JSON, but for numbers that are not finite: null."""
        if self._thread is not None:
            entry = {"kind": kind, "time": round(time.time(), 3), **fields}
            self._lines.put(json.dumps(_strict(entry), allow_nan=False))

    def close(self) -> None:
        """Write what is left, if it can be written."""
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join()
            self._thread = None

    def _run(self, path: Path) -> None:
        file, waiting, going = _File(path), deque[bytes](maxlen=_MOST_LINES), True
        while going:
            going = self._collect(waiting, patience=_RETRY_SECONDS if file.failing else None)
            file.append(waiting)
        file.close()

    def _collect(self, waiting: deque[bytes], *, patience: float | None) -> bool:
        """Wait for a line, or for so long, and take all there are; False: none will follow."""
        try:
            line = self._lines.get(timeout=patience)
            while line is not None:
                waiting.append(line.encode() + b"\n")
                line = self._lines.get_nowait()
        except queue.Empty:
            return True
        return False


class _File:
    """Appends whole lines, also where a full disk took a part of one before."""

    def __init__(self, path: Path) -> None:
        self.failing = False
        self._path = path
        self._descriptor: int | None = None
        self._rest = b""

    def append(self, lines: deque[bytes]) -> None:
        """Write and remove what can be written."""
        try:
            if self._descriptor is None:
                self._descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
            while self._rest or lines:
                self._rest = self._rest or lines.popleft()
                self._rest = self._rest[os.write(self._descriptor, self._rest) :]
        except OSError as error:
            if not self.failing:
                log.warning("cannot write %s: %s; training goes on, and so does trying", self._path, error.strerror)
            self.failing = True
            self.close()
        else:
            if self.failing:
                log.info("%s is written again", self._path)
            self.failing = False

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _strict(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    return value
