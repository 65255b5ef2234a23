"""metrics.jsonl: what happened in the swarm, one JSON object a line, written off the event loop."""

import json
import queue
import threading
import time
from pathlib import Path
from typing import Any


class Journal:
    """Appends lines in the order of the calls. Without a folder it keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if folder is not None:
            self._thread = threading.Thread(target=self._write, args=(folder / "metrics.jsonl",), name="journal")
            self._thread.start()

    def note(self, kind: str, **fields: Any) -> None:
        """Add a line of this kind with the time; fields must be JSON."""
        if self._thread is not None:
            self._lines.put(json.dumps({"kind": kind, "time": round(time.time(), 3), **fields}))

    def close(self) -> None:
        """Write what is left."""
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join()
            self._thread = None

    def _write(self, path: Path) -> None:
        with path.open("a", encoding="utf-8") as file:
            while (line := self._lines.get()) is not None:
                file.write(line + "\n")
                if self._lines.empty():
                    file.flush()
