"""128 particles push 1 MB each in every round, beside plain sockets that move the same bytes.

Run: PYTHONPATH=tests python benchmarks/crowd.py [--seconds N] [--particles N] [--kilobytes N] [--write]
The particles live in a few processes and do nothing but exchange, with default settings. Blocks of their rounds take
turns with blocks of rounds over plain sockets: the same processes send as many bytes to a hub that only takes them
in and sends as many back. Bars: no thread for each particle, nobody suspected, 99 % of all exchanges within twice the
plain time, and no more memory than three models and a push of each.
"""

import argparse
import os
import statistics
import tempfile
from pathlib import Path

import torch
from _results import may_write, publish

from support.crowd_watch import Seen, watch

RESULT = "crowd.md"


def percentiles(seconds: list[float]) -> tuple[float, float]:
    """Median and 99th percentile, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return 1000 * cuts[49], 1000 * cuts[98]


def report(seen: Seen, small: Seen, particles: int, nbytes: int) -> str:
    """Figures beside their bars."""
    swarm, plain = percentiles(seen.swarm_seconds), percentiles(seen.plain_seconds)
    in_flight = (3 + particles) * nbytes
    return "\n".join(
        [
            "| what | measured | bar |",
            "|---|---|---|",
            f"| rounds, of {particles} particles | {seen.rounds} | |",
            f"| rounds without all of them | {seen.incomplete} | 0 |",
            f"| particles lost on the way | {seen.lost} | 0 |",
            f"| threads of the synchronizer, by itself / with all | {seen.threads_before} / {seen.threads} | |",
            f"| exchange over plain sockets, ms, median / p99 | {plain[0]:.0f} / {plain[1]:.0f} | |",
            f"| exchange in the swarm, ms, median / p99 | {swarm[0]:.0f} / {swarm[1]:.0f} | |",
            f"| median / median of plain | {swarm[0] / plain[0]:.2f} | |",
            f"| p99 / p99 of plain | {swarm[1] / plain[1]:.2f} | 2 |",
            f"| p99 / median of plain | {swarm[1] / plain[0]:.2f} | 2 |",
            f"| memory that the swarm takes, MB, with pushes of 1 kB | {small.memory / 1e6:.0f} | |",
            f"| memory beyond that, MB | {(seen.memory - small.memory) / 1e6:.0f} | {in_flight / 1e6:.0f} |",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--particles", type=int, default=128)
    parser.add_argument("--kilobytes", type=int, default=1024)
    may_write(parser, RESULT)
    arguments = parser.parse_args()
    elements = 256 * arguments.kilobytes
    with tempfile.TemporaryDirectory() as folder:
        small = watch(Path(folder), arguments.particles, 256, seconds=2)
    with tempfile.TemporaryDirectory() as folder:
        seen = watch(Path(folder), arguments.particles, elements, seconds=arguments.seconds)
    table = report(seen, small, arguments.particles, 4 * elements)
    how = (
        f"`PYTHONPATH=tests python benchmarks/crowd.py`, torch {torch.__version__}, {os.cpu_count()} cores, "
        f"{arguments.kilobytes} kB a push, {arguments.seconds:.0f} s."
    )
    publish(RESULT, "A crowd", how, table, write=arguments.write)


if __name__ == "__main__":
    main()
