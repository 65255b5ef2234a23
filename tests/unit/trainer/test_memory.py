"""Centers that are made and dropped take the memory of those that are alive."""

import subprocess
import sys

MEBIBYTE = 1 << 20
SCRIPT = """
import threading
from pathlib import Path
import torch
from swarm_trainer.algorithms.average import average
from swarm_trainer.synchronizer.memory import settle_memory


def resident():
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmRSS" in line)


def merge():
    now = average(pushed)
    before, most, journal = resident(), 0, []
    for _ in range(200):
        now = average(pushed)
        journal.append(bytearray(100))
        most = max(most, resident() - before)
    print(1024 * most)


settle_memory()
torch.set_num_threads(1)
pushed = [torch.randn(1 << 18) for _ in range(3)]
thread = threading.Thread(target=merge)
thread.start()
thread.join()
"""


def test_two_hundred_centers_one_after_the_other_take_no_more_than_three() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 3 * MEBIBYTE
