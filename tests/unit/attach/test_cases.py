"""Every case of the table through `attach`, in a process of its own, which joins a synchronizer of its own."""

import os
import re
import signal
from pathlib import Path

import pytest
import torch

from support import nursery
from support.processes import UID
from swarm_api import env
from swarm_api.algorithm import Algorithm, AlgorithmName
from unit.attach.cases import CASES
from unit.attach.twice import PERIOD
from unit.trainer.in_process import SECONDS, SECRET, World, a_world

ROOT = Path(__file__).parents[3]

SCRIPT = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from unit.attach.cases import CASES
from unit.attach.twice import run
run(CASES["NAME"].script)
"""


@pytest.mark.parametrize("name", CASES)
def test_it_is_as_the_table_says(tmp_path: Path, name: str) -> None:
    case = CASES[name]
    if case.cuda and not torch.cuda.is_available():
        pytest.skip("needs a GPU that torch can use")
    with a_world(tmp_path) as world:
        world.synchronizer(algorithm=Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=PERIOD))
        code, log = run_as_particle(world, tmp_path, SCRIPT.replace("NAME", name))
    if case.refused:
        assert re.search(f"UnsupportedModelError: {case.refused}", log), log
    assert code == (1 if case.refused else 0), log


def run_as_particle(world: World, folder: Path, script: str) -> tuple[int, str]:
    """Exit code and output of a process that is particle 0."""
    train, secret, log = folder / "train.py", folder / "secret", folder / "log"
    train.write_text(script)
    secret.write_bytes(SECRET)
    environ = {
        "PATH": os.environ["PATH"],
        "OMP_NUM_THREADS": "1",
        env.JOB_UID: UID,
        env.PARTICLE_INDEX: "0",
        env.INCARNATION: "1",
        env.INSTANCE_UID: "p0.1",
        env.SYNCHRONIZER_ADDRESS_FILE: str(world.address_file),
        env.SECRET_FILE: str(secret),
    }
    process = nursery.start([str(train)], environ, folder, log)
    try:
        return process.wait(3 * SECONDS), log.read_text()
    except AssertionError as error:
        raise AssertionError(log.read_text()) from error
    finally:
        process.signal(signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("section", dict.fromkeys(case.section for case in CASES.values()))
def test_the_documentation_shows_the_table(section: str) -> None:
    rows = [
        f"| {case.what} | {'refused' if case.refused else 'works'} | {case.means} |"
        for case in CASES.values()
        if case.section == section
    ]
    table = "\n".join([f"## {section}", "", "| you have | | in a swarm |", "|---|---|---|", *rows, ""])
    assert table in (ROOT / "docs" / "models.md").read_text(), f"docs/models.md needs this instead:\n\n{table}"
