"""The workshop, which `make` prepares before anything else runs, and the example that it trains."""

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(lines: list[str]) -> list[Requirement]:
    here = [Requirement(line) for line in lines]
    return [each for each in here if each.marker is None or each.marker.evaluate()]


def direct_dependencies() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"].values()
    every = requirements([*PROJECT["dependencies"], *(line for extra in extras for line in extra)])
    return [each for each in every if each.name != PROJECT["name"]]


def test_every_dependency_is_pinned_to_a_version_it_allows() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {canonicalize_name(each.name): next(iter(each.specifier)).version for each in requirements(lines)}
    unmet = [
        str(each)
        for each in direct_dependencies()
        if not each.specifier.contains(pins.get(canonicalize_name(each.name), "0"))
    ]
    assert not unmet, "pin again, see AGENTS.md"


@pytest.fixture
def setup(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs a copy of the setup in a folder that has no .venv, where `programs` replace those of the machine."""

    def run(programs: dict[str, str], **environment: str) -> subprocess.CompletedProcess[str]:
        for name in ("scripts/setup.sh", "pyproject.toml", "constraints.txt"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
        for name, text in programs.items():
            program = tmp_path / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(f"#!/bin/sh\n{text}\n")
            program.chmod(0o755)
        return subprocess.run(
            [tmp_path / "scripts/setup.sh"],
            env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "HOME": str(tmp_path / "home"), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


FULL_DISK = {"df": "echo Avail; echo 2000000000"}


@pytest.mark.parametrize(
    ("programs", "environment", "says"),
    [
        ({}, {"PYTHON": "no-such-python"}, "install Python 3.11 or newer, or set PYTHON"),
        ({"python3": "echo False /usr/bin/python3.9 3.9.2"}, {}, "is Python 3.9.2, 3.11 or newer is needed"),
        (FULL_DISK, {"PYTHON": sys.executable}, "2 GB free under"),
        ({}, {"PYTHON": sys.executable, "HOME": "/dev/null"}, "set XDG_CACHE_HOME to a folder that can be written"),
    ],
    ids=["no Python", "old Python", "full disk", "home that cannot be written"],
)
def test_setup_that_cannot_work_says_why_and_what_to_do(setup, programs, environment, says) -> None:
    ended = setup(programs, **environment)
    assert ended.returncode == 1
    assert says in ended.stderr


def test_setup_says_which_step_failed_and_where_the_log_is(setup, tmp_path) -> None:
    python = f'case "$*" in *print*) echo True {tmp_path}/bin/python3 3.11.2;; *-m*) echo no network; exit 1;; esac'
    ended = setup({"python3": python, "df": "echo Avail; echo 9000000000"})
    assert ended.returncode == 1
    assert "FAILED" in ended.stderr
    assert "no network" in ended.stderr
    assert str(tmp_path / "home/.cache/swarm-training/setup.log") in ended.stderr


def test_the_example_trains_without_a_swarm() -> None:
    ended = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "examples/mnist/train.py", "--epochs", "1"],
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    assert ended.stderr == ""
    accuracy = re.search(r"accuracy (\d+\.\d)%", ended.stdout)
    assert accuracy
    assert float(accuracy[1]) > 80, ended.stdout
