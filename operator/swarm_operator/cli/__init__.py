"""The program `swarm`, for jobs on this machine; on a cluster there is kubectl."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from swarm_operator.cli import kill, run, status, validate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code: 0 done, 1 failed, 2 bad manifest or usage, 130 Ctrl-C."""
    parser = argparse.ArgumentParser(
        prog="swarm", description="Train with a swarm of particles on this machine; on a cluster use kubectl."
    )
    parser.add_argument("--version", action="version", version=f"swarm {version('swarm-training')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (run, status, kill, validate):
        command.add_to(commands)
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.command(chosen))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output left; what Python would still flush must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
