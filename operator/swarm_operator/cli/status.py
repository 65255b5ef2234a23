"""`swarm status`: how a run stands, running or not."""

import argparse
import sys
from pathlib import Path
from typing import Any

from swarm_api.status import JobStatus
from swarm_operator.backends.local.control import answers
from swarm_operator.backends.local.folder import FolderError, RunFolder
from swarm_operator.page.words import loss_text, news, one_line, phase_words, title


def add_to(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("status", help="show how a run stands", description=__doc__)
    parser.add_argument("dir", type=Path, nargs="?", default=Path("runs/latest"), metavar="DIR", help="(%(default)s)")
    parser.set_defaults(command=status)


def status(arguments: argparse.Namespace) -> int:
    """0 if there is a run in this folder, be it over or not; else 2."""
    try:
        folder = RunFolder.open(arguments.dir)
    except FolderError as error:
        print(f"swarm status: {error}", file=sys.stderr)
        return 2
    known = JobStatus.model_validate_json(folder.status.read_text()) if folder.status.exists() else JobStatus()
    print("\n".join(lines(folder, known)))
    return 0


def lines(folder: RunFolder, known: JobStatus) -> list[str]:
    """The status for a person."""
    over = "" if known.state.ended or answers(folder.socket) else ", and swarm run is gone"
    training = known.training
    rows = [("PARTICLE", "STATE", "STEP", "LOSS", "FAILURES")]
    rows += (
        (str(p.index), phase_words(p), str(p.step), loss_text(p.loss) + " *" * p.is_best, str(p.failures))
        for p in known.particle_statuses
    )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        f"{folder.shown()}: {known.state}{over}",
        f"round {training.round}, {training.progress_percent} %, best loss {loss_text(training.best_loss)}, "
        f"{known.particles.ready} of {known.particles.desired} particles ready",
        *(f"{title(condition)}: {one_line(condition.message) or condition.reason}" for condition in news(known)),
        "",
        *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows),
    ]
