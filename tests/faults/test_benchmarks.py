"""The benchmarks with as little as they can do: nobody runs them every day, and yet they are to work on that day."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("benchmark", "says"),
    [
        ("crowd.py --seconds 1 --particles 8 --kilobytes 16", "rounds without all of them"),
        ("faults.py --only killed --repeats 2 --megabytes 1", "peer SIGKILLed in a round"),
        ("faults.py --only heartbeats --megabytes 1", "heartbeats answered"),
        ("link.py --rounds 2 --megabytes 1", "gloo"),
    ],
)
def test_a_benchmark_comes_to_its_end_and_prints_its_table(benchmark: str, says: str) -> None:
    script, *arguments = benchmark.split()
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / script), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        timeout=150,
    )
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
