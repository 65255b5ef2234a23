"""`swarm validate`: what a cluster would refuse, and what this machine could not do."""

import argparse
import sys
from pathlib import Path
from typing import Any

from swarm_operator.cli.manifest import ManifestError, load


def add_to(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("validate", help="check a manifest", description=__doc__)
    parser.add_argument("manifest", type=Path, metavar="JOB.yaml")
    parser.set_defaults(command=validate)


def validate(arguments: argparse.Namespace) -> int:
    """0 for a manifest that a cluster would accept, even if this machine could not run it; else 2."""
    try:
        manifest = load(arguments.manifest)
    except ManifestError as error:
        print(error, file=sys.stderr)
        return 2
    problems = manifest.recipes.problems
    refused = manifest.said(problem for problem in problems if problem.everywhere)
    print("".join(f"{line}\n" for line in refused), end="", file=sys.stderr)
    for line in manifest.said(problem for problem in problems if not problem.everywhere):
        print(f"swarm run would refuse it: {line}")
    for note in manifest.recipes.notes:
        print(f"swarm run: {note}")
    if refused:
        return 2
    print(f"{arguments.manifest}: valid")
    return 0
