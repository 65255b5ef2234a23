"""Checkpoints under kills: of the synchronizer while it writes one, of everything at once; and full disks."""

import hashlib
import resource
import signal
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from support.processes import UID, Processes, eventually, swarm_of
from support.scripts import training
from swarm_api import env
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_api.report import Presence, SwarmState
from swarm_api.settings import Keeping
from swarm_trainer.checkpoint.snapshot import Saved
from swarm_trainer.checkpoint.store import Store
from swarm_trainer.vectors import state_dict

pytestmark = pytest.mark.faults

PSOPS = Algorithm(name=AlgorithmName.PSOPS, sync_period=3)
ALWAYS = Keeping(interval_seconds=0)
"""Whenever the last one is written."""
SAYS_WHAT_IT_STARTS_FROM = "say(start=digest(), step=0)"


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """As in the script."""
    parts = (tensor.numpy().tobytes() for _, tensor in sorted(tensors.items()))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def newest(swarm: Processes) -> Saved:
    """The newest checkpoint on disk."""
    return Store(swarm.checkpoints, uid=UID, epoch=0).saved()[0]


def kill_all(swarm: Processes) -> None:
    for process in swarm.started:
        process.signal(signal.SIGKILL)
        process.wait()


def test_when_everything_is_killed_the_swarm_goes_on_from_its_newest_checkpoint(tmp_path: Path) -> None:
    script = training(epochs=3, attached=SAYS_WHAT_IT_STARTS_FROM)
    with swarm_of(tmp_path, script, algorithm=PSOPS, sync=Sync(), checkpoint=ALWAYS) as swarm:
        swarm.synchronizer(keeps=True)
        for index in range(2):
            swarm.particle(index)
        swarm.touch("end-0")
        swarm.until_loss("particle-0-1", below=0.01)

        def both_are_in_the_second_epoch() -> bool:
            found = Store(swarm.checkpoints, uid=UID, epoch=0).saved()
            return bool(found) and all(entry["progress"]["epoch"] == 1 for entry in found[0].manifest.parts["ledger"])

        eventually(both_are_in_the_second_epoch, "a checkpoint of the second epoch")
        kill_all(swarm)

        kept = newest(swarm)
        version, ledger = kept.version(), kept.manifest.parts["ledger"]
        second = swarm.synchronizer(2, keeps=True)
        particles = [swarm.particle(index, incarnation=2) for index in range(2)]
        swarm.trains_on("particle-0-2", "particle-1-2")
        for index in range(2):
            said = swarm.said(f"particle-{index}-2")
            assert said[0]["start"] == digest(state_dict(kept.manifest.weights, version.weights))
            assert said[1]["epoch"] == 1
            assert said[1]["loss"] < 1.0
            before = ledger[index]["progress"]["step"]
            assert before > 0
            eventually(
                lambda index=index, before=before: (found := swarm.reported(index)) and found.step > before,
                "it counts on from the step that was committed",
            )
        restored = swarm.history("restored")
        assert [line["round"] for line in restored] == [kept.manifest.round]
        for epoch in (1, 2):
            swarm.touch(f"end-{epoch}")
        assert swarm.ended(second) == 0
        assert [particle.wait() for particle in particles] == [0, 0]
        after = [line["round"] for line in swarm.history("round") if line["time"] >= restored[0]["time"]]
        assert after == list(range(kept.manifest.round + 1, kept.manifest.round + 1 + len(after)))


BIG = "model.big = torch.nn.Parameter(torch.zeros(8_000_000))"
"""32 MB, so that a kill comes while they are written."""


def test_a_synchronizer_that_is_killed_while_it_writes_a_checkpoint_leaves_the_last_one_whole(tmp_path: Path) -> None:
    script = training(setup=BIG, attached=SAYS_WHAT_IT_STARTS_FROM)
    with swarm_of(tmp_path, script, algorithm=PSOPS, sync=Sync(), checkpoint=ALWAYS) as swarm:
        for incarnation in range(1, 4):
            synchronizer = swarm.synchronizer(incarnation, keeps=True)
            for index in range(2):
                swarm.particle(index, incarnation)
            begun = f"[0-9]*-{incarnation}"
            eventually(lambda begun=begun: list(swarm.checkpoints.glob(begun)), "its first checkpoint is whole")
            partial = f".*-{incarnation}.partial/center.safetensors"
            while not list(swarm.checkpoints.glob(partial)):
                time.sleep(0.001)
            synchronizer.signal(signal.SIGKILL)
            kill_all(swarm)
            assert list(swarm.checkpoints.glob(".*.partial")), "one was being written"
            kept = newest(swarm)
            assert kept.manifest.epoch == incarnation
            assert kept.version().round == kept.manifest.round
        last = swarm.synchronizer(4, keeps=True)
        particles = [swarm.particle(index, incarnation=4) for index in range(2)]
        swarm.trains_on("particle-0-4", "particle-1-4", steps=3)
        start = swarm.said("particle-0-4")[0]["start"]
        assert start == digest(state_dict(kept.manifest.weights, kept.version().weights))
        assert not list(swarm.checkpoints.glob(".*-[123].partial"))
        swarm.touch("end-0")
        assert swarm.ended(last) == 0
        assert [particle.wait() for particle in particles] == [0, 0]


def test_survivors_that_are_ahead_make_the_center_and_one_that_died_meanwhile_has_its_place_from_the_checkpoint(
    tmp_path: Path,
) -> None:
    keeping = Keeping(interval_seconds=1)
    with swarm_of(tmp_path, training(), replicas=3, algorithm=PSOPS, sync=Sync(), checkpoint=keeping) as swarm:
        first = swarm.synchronizer(keeps=True)
        particles = [swarm.particle(index) for index in range(3)]
        survivors = ["particle-0-1", "particle-1-1"]
        eventually(lambda: list(swarm.checkpoints.glob("[0-9]*")), "a checkpoint")
        eventually(
            lambda: swarm.history("round")[-1]["round"] > newest(swarm).manifest.round + 2,
            "rounds after the newest checkpoint",
        )
        first.signal(signal.SIGKILL)
        particles[2].signal(signal.SIGKILL)
        first.wait()
        kept = newest(swarm)
        known = swarm.history("round")[-1]["round"]
        assert known > kept.manifest.round
        second = swarm.synchronizer(2, keeps=True)
        swarm.rounds_go_on(3)
        assert "center rebuilt from particles [0, 1]" in swarm.log("synchronizer-2")
        assert "lost with the last synchronizer: the best weights ever" in swarm.log("synchronizer-2")
        lost = swarm.until_presence(2, Presence.DETACHED)
        assert lost.step == kept.manifest.parts["ledger"][2]["progress"]["step"]
        particles[2] = swarm.particle(2, incarnation=2)
        swarm.trains_on(*survivors, "particle-2-2")
        for name in survivors:
            steps = [line["step"] for line in swarm.said(name) if "step" in line]
            assert all(after == before + 1 for before, after in pairwise(steps))
        swarm.touch("end-0")
        assert swarm.ended(second) == 0
        assert [particle.wait() for particle in particles] == [0, 0, 0]


def test_a_synchronizer_that_is_told_to_stop_keeps_the_last_round(tmp_path: Path) -> None:
    with swarm_of(tmp_path, training(), algorithm=PSOPS, sync=Sync()) as swarm:
        first = swarm.synchronizer(keeps=True)
        for index in range(2):
            swarm.particle(index)
        swarm.rounds_go_on(10)
        assert not list(swarm.checkpoints.glob("[0-9]*")), "none is due"
        first.signal(signal.SIGTERM)
        assert first.wait() == 128 + signal.SIGTERM
        kept = newest(swarm)
        assert kept.manifest.round == swarm.history("round")[-1]["round"]
        assert not list(swarm.checkpoints.glob(".*.partial"))


def test_a_synchronizer_that_slept_through_its_replacement_writes_no_checkpoint_any_more(tmp_path: Path) -> None:
    rarely = Keeping(interval_seconds=3600)
    with swarm_of(tmp_path, training(), algorithm=PSOPS, sync=Sync(), checkpoint=rarely) as swarm:
        stale = swarm.synchronizer(keeps=True)
        for index in range(2):
            swarm.particle(index)
        swarm.rounds_go_on()
        stale.signal(signal.SIGSTOP)
        for process in swarm.started[1:]:
            process.signal(signal.SIGKILL)
        swarm.write(swarm.settings.model_copy(update={"checkpoint": ALWAYS}))
        swarm.synchronizer(2, keeps=True)
        for index in range(2):
            swarm.particle(index, incarnation=2)
        eventually(lambda: list(swarm.checkpoints.glob("[0-9]*-2")), "a checkpoint of its successor")
        stale.signal(signal.SIGTERM)  # So that it would write its last round.
        stale.signal(signal.SIGCONT)
        assert stale.wait() == 128 + signal.SIGTERM
        assert "belongs to synchronizer 2 now: synchronizer 1 writes no checkpoints any more" in swarm.log(
            "synchronizer-1"
        )
        assert not list(swarm.checkpoints.glob("[0-9]*-1"))
        swarm.rounds_go_on()


def test_a_full_disk_stops_no_training_and_is_told_until_there_is_room(tmp_path: Path) -> None:
    with swarm_of(tmp_path, training(setup=BIG), algorithm=PSOPS, sync=Sync(), checkpoint=ALWAYS) as swarm:
        synchronizer = swarm.synchronizer(keeps=True)
        for index in range(2):
            swarm.particle(index)
        eventually(lambda: list(swarm.checkpoints.glob("[0-9]*-1")), "a checkpoint")

        def error() -> str:
            report = eventually(swarm.report, "a report").checkpoint
            assert report is not None
            return report.error

        _, most = resource.prlimit(synchronizer.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(synchronizer.pid, resource.RLIMIT_FSIZE, (1_000_000, most))
        eventually(lambda: "File too large" in error(), "the failure is told")
        swarm.rounds_go_on()
        kept = newest(swarm)
        assert kept.version().round == kept.manifest.round
        resource.prlimit(synchronizer.pid, resource.RLIMIT_FSIZE, (most, most))
        eventually(lambda: not error(), "there is room again")
        assert newest(swarm).manifest.round > kept.manifest.round


def until_the_model_cannot_be_written(swarm: Processes, output: Path, why: str) -> None:
    """Both particles finish, and the synchronizer says so of its output."""
    message = f"the model cannot be written to {output}: {why}: free space there, or repair the volume"
    particles = [swarm.particle(index) for index in range(2)]
    swarm.rounds_go_on()
    swarm.touch("end-0")
    assert [particle.wait() for particle in particles] == [0, 0]
    eventually(lambda: (report := swarm.report()) and report.message == message, "it is told")
    assert eventually(swarm.report, "a report").state is SwarmState.TRAINING
    time.sleep(2.5)
    assert swarm.log("synchronizer-1").count("the model cannot be written") == 1, "it tried again, and told it once"


def test_a_model_for_which_there_is_no_room_is_written_when_there_is(tmp_path: Path) -> None:
    with swarm_of(tmp_path, training(setup=BIG), algorithm=PSOPS, sync=Sync()) as swarm:
        synchronizer = swarm.synchronizer()
        _, most = resource.prlimit(synchronizer.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(synchronizer.pid, resource.RLIMIT_FSIZE, (1_000_000, most))
        until_the_model_cannot_be_written(swarm, swarm.folder, "File too large")
        resource.prlimit(synchronizer.pid, resource.RLIMIT_FSIZE, (most, most))
        assert swarm.ended(synchronizer) == 0
        assert swarm.model()["big"].shape == (8_000_000,)
        assert not [*swarm.folder.glob(".*.partial"), *swarm.folder.glob(".tmp*")]


def test_a_synchronizer_that_is_told_to_stop_before_it_could_write_the_model_leaves_it_in_a_checkpoint(
    tmp_path: Path,
) -> None:
    output = tmp_path / "output"
    output.touch()  # A file where the folder should be.
    rarely = Keeping(interval_seconds=3600)
    with swarm_of(tmp_path, training(), algorithm=PSOPS, sync=Sync(), checkpoint=rarely) as swarm:
        first = swarm.synchronizer(keeps=True, **{env.OUTPUT_DIR: str(output)})
        until_the_model_cannot_be_written(swarm, output, "Not a directory")
        kept = newest(swarm)
        assert kept.manifest.round == swarm.round()
        first.signal(signal.SIGTERM)
        assert first.wait() == 128 + signal.SIGTERM
        output.unlink()
        output.mkdir()
        assert swarm.ended(swarm.synchronizer(2, keeps=True, **{env.OUTPUT_DIR: str(output)})) == 0
        model = load_file(output / "model.safetensors")
        assert digest(model) == digest(state_dict(kept.manifest.weights, kept.version().weights))
