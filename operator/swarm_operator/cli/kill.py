"""`swarm kill`: end a particle or the synchronizer of a run, to see the swarm heal. It counts as no failure."""

import argparse
import signal
import sys
from pathlib import Path
from typing import Any

from swarm_operator.backends.local.control import NotRunningError, ask
from swarm_operator.backends.local.folder import FolderError, RunFolder


def add_to(commands: Any) -> None:
    """Add the sub-command."""
    parser = commands.add_parser("kill", help="kill a particle or the synchronizer of a run", description=__doc__)
    parser.add_argument("target", metavar="MEMBER", help="particle-2, synchronizer, or a member's full name")
    parser.add_argument("--dir", type=Path, default=Path("runs/latest"), help="folder of the run (%(default)s)")
    parser.add_argument("--signal", type=signal_number, default=signal.SIGKILL, help="KILL, TERM, STOP, 15 ... (KILL)")
    parser.set_defaults(command=kill)


def signal_number(text: str) -> signal.Signals:
    """TERM, SIGTERM or 15.

    Raises:
        ValueError: there is no such signal.
    """
    if text.isdecimal():
        return signal.Signals(int(text))
    name = f"SIG{text.upper().removeprefix('SIG')}"
    if name not in signal.Signals.__members__:
        raise ValueError(f"no signal {text}")
    return signal.Signals[name]


def kill(arguments: argparse.Namespace) -> int:
    """0 if the signal was sent, 1 if there was nobody to send it to, 2 where there is no run."""
    try:
        folder = RunFolder.open(arguments.dir)
        answer = ask(folder.socket, {"kill": arguments.target, "signal": int(arguments.signal)})
    except FolderError as error:
        print(f"swarm kill: {error}", file=sys.stderr)
        return 2
    except NotRunningError as error:
        print(f"swarm kill: {error}", file=sys.stderr)
        return 1
    if "error" in answer:
        print(f"swarm kill: {answer['error']}", file=sys.stderr)
        return 1
    print(f"sent {arguments.signal.name} to {answer['killed']}")
    return 0
