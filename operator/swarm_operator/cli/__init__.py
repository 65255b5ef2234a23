"""The program `swarm`, also installed as `kubectl-swarm`."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from swarm_operator.cli import kill, run, status, validate


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one sub-command and return its exit code: 0 done, 1 failed, 2 bad manifest or usage, 130 Ctrl-C."""
    plugin = Path(sys.argv[0]).name.startswith("kubectl-")
    parser = argparse.ArgumentParser(
        prog="kubectl swarm" if plugin else "swarm",
        description="Train with a swarm of particles, on this machine or on a cluster.",
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
