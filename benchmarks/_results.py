"""The tables of a benchmark: printed, and kept in results/ where that is asked for."""

import argparse
from pathlib import Path

_FOLDER = Path(__file__).parent / "results"


def may_write(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the option `--write`, for the file of this name."""
    parser.add_argument("--write", action="store_true", help=f"write what is printed to {_FOLDER / name}")


def publish(name: str, title: str, how: str, *tables: str, write: bool) -> None:
    """Print the tables; write: and make them the file of this name, below its title and how they were measured."""
    print("\n\n".join(tables))
    if write:
        _FOLDER.mkdir(exist_ok=True)
        (_FOLDER / name).write_text("\n\n".join([f"# {title}", how, *tables]) + "\n")
