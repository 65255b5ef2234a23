"""`swarm run`: one job on this machine, without a cluster, from its manifest to its trained model."""

import argparse
import asyncio
import re
import sys
from pathlib import Path
from typing import Any

from swarm_operator.backends.local.folder import FolderError, RunFolder
from swarm_operator.cli.manifest import Manifest, ManifestError, Where, change, load
from swarm_operator.cli.resume import resume
from swarm_operator.cli.session import GameDay, Outcome, Session
from swarm_operator.cli.summary import summary
from swarm_operator.page import open_page


def add_to(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("run", help="run a job on this machine", description=__doc__)
    job = parser.add_mutually_exclusive_group(required=True)
    job.add_argument("manifest", type=Path, nargs="?", metavar="JOB.yaml")
    job.add_argument("--resume", type=Path, metavar="DIR", help="go on with a run that ended, from its last checkpoint")
    parser.add_argument("--dir", type=Path, help="folder for everything this run writes (runs/JOB-TIME)")
    parser.add_argument(
        "--set", type=_change, action="append", default=[], metavar="FIELD=VALUE", help="as spec.particles.replicas=8"
    )
    parser.add_argument(
        "--kill", type=_game_day, action="append", default=[], metavar="MEMBER@PERCENT",
        help="game day: 2@50%% kills particle 2 half-way, synchronizer@30%% the synchronizer",
    )  # fmt: skip
    parser.add_argument("--plain", action="store_true", help="plain lines also in a terminal")
    parser.add_argument("--grace", type=float, default=10.0, metavar="SECONDS", help="from SIGTERM to SIGKILL (10)")
    parser.set_defaults(command=run)


def run(arguments: argparse.Namespace) -> int:
    """0 Complete, 1 Failed, 2 bad manifest or folder, 128 + the signal that ended it."""
    try:
        manifest, folder = _resume(arguments) if arguments.resume else _begin(arguments)
    except (ManifestError, FolderError) as error:
        print(error, file=sys.stderr)
        return 2
    folder.write_manifest(manifest.data, manifest.home)
    for note in manifest.recipes.notes:
        print(f"note: {note}")
    if arguments.resume and not folder.resumable:
        print("note: there is no checkpoint, so the training starts from its beginning")
    if manifest.job.spec.suspend:
        print("note: spec.suspend is true, so nothing starts; --set spec.suspend=false starts it")
    print(f"folder: {folder.shown()}", flush=True)
    page = open_page(terminal=sys.stdout.isatty() and not arguments.plain)
    try:
        session = Session(manifest, folder, page, arguments.kill, grace=arguments.grace)
        outcome = asyncio.run(session.run())
    finally:
        page.close()
    print(summary(outcome, folder), flush=True)
    return _exit_code(outcome)


def _begin(arguments: argparse.Namespace) -> tuple[Manifest, RunFolder]:
    manifest = load(arguments.manifest, arguments.set)
    _check(manifest, arguments.kill)
    return manifest, RunFolder.create(manifest.job.metadata.name, arguments.dir)


def _resume(arguments: argparse.Namespace) -> tuple[Manifest, RunFolder]:
    if arguments.dir is not None:
        raise FolderError(f"--resume goes on in {arguments.resume}: leave --dir out")
    manifest, folder = resume(arguments.resume, arguments.set)
    _check(manifest, arguments.kill)
    return manifest, folder


def _exit_code(outcome: Outcome) -> int:
    if outcome.signal is not None:
        return 128 + outcome.signal
    return 0 if outcome.complete else 1


def _check(manifest: Manifest, kills: list[GameDay]) -> None:
    problems = manifest.said(manifest.recipes.problems)
    particles = manifest.job.spec.particles
    most = particles.max_replicas or particles.replicas
    problems += (
        f"--kill {kill.target}@{kill.percent}%: particles are 0 to {most - 1}"
        for kill in kills
        if kill.index is not None and kill.index >= most
    )
    if problems:
        raise ManifestError(problems)


def _change(text: str) -> tuple[Where, Any]:
    try:
        return change(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _game_day(text: str) -> GameDay:
    match = re.fullmatch(r"(?:(?:particle-)?(\d+)|synchronizer)@(\d+)%?", text)
    if match is None or int(match[2]) > 100:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 2@50% or synchronizer@30%")
    return GameDay(index=None if match[1] is None else int(match[1]), percent=int(match[2]))
