"""What this machine has: cores, and GPUs with who holds which.

Found out without torch, which is slow to import and would create a context on a GPU.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"


def cores() -> int:
    """Cores that this process may use, by affinity and by the quota of its control group; at least 1."""
    allowed = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(allowed, int(quota) // int(period)))
    except (OSError, ValueError):  # another version of control groups, or the word max
        return allowed


def detect_gpus(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The GPUs that may be used, as CUDA_VISIBLE_DEVICES names them; what it names already is the limit."""
    if VISIBLE in environ:
        named = [name.strip() for name in environ[VISIBLE].split(",")]
        # CUDA itself stops at the first that it cannot find; -1 is the usual way to hide all.
        end = next((i for i, name in enumerate(named) if name in ("", "-1")), len(named))
        return tuple(named[:end])
    return tuple(str(number) for number in range(_count()))


def _count() -> int:
    if program := shutil.which("nvidia-smi"):
        try:
            listed = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return 0
        return len(re.findall(r"^GPU \d+:", listed.stdout, re.MULTILINE)) if listed.returncode == 0 else 0
    return sum(1 for _ in Path("/dev").glob("nvidia[0-9]*"))


class Gpus:
    """Deals GPUs out, whole ones, lowest first."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._free = list(names)
        self._all = names

    def take(self, count: int) -> tuple[str, ...] | None:
        """This many, or None where fewer are free."""
        if count > len(self._free):
            return None
        taken, self._free = tuple(self._free[:count]), self._free[count:]
        return taken

    def give_back(self, taken: tuple[str, ...]) -> None:
        """They are free again."""
        self._free = [name for name in self._all if name in self._free or name in taken]

    def lacking(self, count: int) -> str:
        """Why `take` would return None."""
        return f"needs {count} GPU{'s' if count > 1 else ''}, {len(self._free)} of {len(self._all)} free"
