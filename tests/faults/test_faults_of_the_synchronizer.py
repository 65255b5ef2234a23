"""A synchronizer that is killed at every moment of its life: what the weights of those who lived on say of it."""

import signal
from pathlib import Path

import pytest

from support.processes import UID, eventually
from support.tallied import tallied
from support.tally import MOMENTS_OF_A_SYNCHRONIZER
from swarm_api.job import Sync
from swarm_trainer.checkpoint.snapshot import TENSORS_FILE
from swarm_trainer.checkpoint.store import Store

pytestmark = pytest.mark.faults


@pytest.mark.parametrize(
    ("moment", "keeps"),
    [
        pytest.param(moment, keeps, id=f"{moment}-{'with' if keeps else 'without'} checkpoints")
        for moment in MOMENTS_OF_A_SYNCHRONIZER
        for keeps in (True, False)
        if keeps or moment != "in a checkpoint"
    ],
)
def test_a_synchronizer_is_killed(tmp_path: Path, moment: str, keeps: bool) -> None:
    with tallied(tmp_path, keeps=keeps) as scene:
        scene.dies("synchronizer", scene.synchronizer, moment)
        scene.swarm.trains_on("particle-0-1", "particle-1-1", "particle-2-1", steps=4)
        scene.restart()


def test_a_synchronizer_is_killed_that_has_kept_a_merge_of_which_the_particle_does_not_know(tmp_path: Path) -> None:
    patient = Sync(grace_milliseconds=30_000)  # So that no later round begins without that particle.
    with tallied(tmp_path, keeps=True, sync=patient) as scene:
        merged = scene.merges_without_a_word()
        eventually(lambda: (scene.swarm.checkpoints / f"{merged}-1").exists(), "its checkpoint")
        scene.synchronizer.signal(signal.SIGKILL)
        scene.synchronizer.wait()
        scene.cable.cut()
        scene.restart()
        scene.goes_on()
        assert [line["round"] for line in scene.swarm.history("restored")] == [merged]
        assert "was merged, and its answer is lost" in scene.swarm.log("particle-1-1")


def test_everything_is_killed_and_the_newest_checkpoint_is_damaged(tmp_path: Path) -> None:
    with tallied(tmp_path, keeps=True) as scene:
        store = Store(scene.swarm.checkpoints, uid=UID, epoch=0)
        eventually(lambda: len(store.saved()) > 1, "two checkpoints")
        scene.synchronizer.signal(signal.SIGKILL)
        scene.synchronizer.wait()
        scene.kill(0, 1, 2)
        known = scene.swarm.history("round")[-1]["round"]
        newest, before, *_ = store.saved()
        tensors = newest.folder / TENSORS_FILE
        damaged = bytearray(tensors.read_bytes())
        damaged[-1] ^= 1
        tensors.write_bytes(damaged)
        scene.undone = max(known, newest.manifest.round) - before.manifest.round
        scene.restart()
        scene.replace(0, 1, 2)
        scene.goes_on()
        assert f"checkpoint {newest.folder.name} is passed over" in scene.swarm.log("synchronizer-2")
        assert [line["round"] for line in scene.swarm.history("restored")] == [before.manifest.round]
