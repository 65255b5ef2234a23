"""`swarm run --resume`: a run that was interrupted goes on where its last checkpoint is."""

import json
import shlex
import signal

import pytest

from support.local import manifest, swarm_manifest
from support.processes import eventually
from support.runs import a_run, swarm
from support.scripts import training
from swarm_trainer.checkpoint.store import Store

pytestmark = pytest.mark.faults

SCRIPT = training(epochs=3, pause=0.02, attached="say(start=model.weight.mean().item())")
TRAINS_FOR_EVER = """
while True:
    tell(step=5)
    time.sleep(0.05)
"""


def said(run, name):
    """The lines of JSON that this process printed; the last may still be half-written."""
    path = run.folder / "logs" / f"job-{name}.log"
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [json.loads(line) for line in lines if line.startswith("{")]


def newest(run):
    return Store(
        run.folder / "checkpoints", uid=json.loads((run.folder / "run.json").read_text())["uid"], epoch=0
    ).saved()[0]


def learned(run, name, *, epoch):
    """Whether this process is in this epoch, and its loss, about 600 without any training, is low."""
    return any(line.get("epoch") == epoch and line["loss"] < 0.1 for line in said(run, name))


@pytest.mark.timeout(300)
def test_a_run_goes_on_after_ctrl_c_until_it_is_complete(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "end-0").touch()
    algorithm = {"name": "LocalSGD", "syncPeriod": 3}
    checkpoint = {"existingClaim": "none", "intervalSeconds": 1}
    job = manifest(
        ["python", "train.py"],
        algorithm=algorithm,
        particles={"replicas": 2},
        synchronizer={"checkpoint": checkpoint, "output": {"existingClaim": "none"}},
    )
    with a_run(tmp_path, job) as run:
        eventually(lambda: learned(run, "particle-0-1", epoch=1), "it learns", seconds=90)
        run.process.send_signal(signal.SIGINT)
        code, output = run.ends()
    assert code == 130
    assert "note: synchronizer.output is ignored on one machine: the model goes to the folder of the run" in output
    assert "note: synchronizer.checkpoint's claim is ignored" in output
    assert f"resume   swarm run --resume {shlex.quote(str(run.folder))}" in output
    last = newest(run).manifest
    assert last.round == json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[-1])["round"]

    with a_run(tmp_path, None, "--set", "spec.algorithm.syncPeriod=2") as run:
        eventually(lambda: learned(run, "particle-0-2", epoch=1), "it trains on", seconds=90)
        busy = swarm("run", "--resume", run.folder)
        assert (busy.returncode, "still runs: stop that first" in busy.stderr) == (2, True)
        start, *steps = said(run, "particle-0-2")
        assert start["start"] == pytest.approx(1.0, abs=0.3)
        assert steps[0]["epoch"] == 1
        eventually(lambda: newest(run).manifest.epoch == 2, "a checkpoint of the second synchronizer")
        assert newest(run).manifest.round > last.round
        (tmp_path / "end-1").touch()
        (tmp_path / "end-2").touch()
        code, output = run.ends(seconds=60)
    assert code == 0, output
    assert "job: Complete after" in output
    attempts = run.status["attempts"]
    assert {key: attempt["incarnation"] for key, attempt in attempts.items()} == {"0": 2, "1": 2, "synchronizer": 2}
    assert not any(attempt["failures"] for attempt in attempts.values())
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["round"] for line in lines if line["kind"] == "restored"] == [last.round]
    rounds = [line["round"] for line in lines if line["kind"] == "round"]
    assert rounds == list(range(1, len(rounds) + 1))
    assert "syncPeriod: 2" in (run.folder / "job.yaml").read_text()
    complete = swarm("run", "--resume", run.folder)
    assert (complete.returncode, "is complete: its model is" in complete.stderr) == (2, True)


def test_a_run_without_a_checkpoint_starts_again_in_new_incarnations_and_says_so(tmp_path):
    with a_run(tmp_path, swarm_manifest(TRAINS_FOR_EVER, particles={"replicas": 2})) as run:
        run.trains()
        run.process.kill()
        run.process.wait()
    with a_run(tmp_path, None, "--grace", "1") as run:
        run.trains(_0=2, _1=2, synchronizer=2)
        run.process.send_signal(signal.SIGINT)
        code, output = run.ends()
    assert code == 130
    assert "note: there is no checkpoint, so the training starts from its beginning" in output
    assert "swarm run --resume" not in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--dir", "elsewhere"], "leave --dir out"),
        (["--set", "metadata.name=other"], "metadata.name: this is the run of job"),
        (["--set", "spec.particles.replica=1"], "unknown field; did you mean replicas?"),
        (["job.yaml"], "not allowed with argument"),
    ],
)
def test_what_cannot_be_resumed_is_refused(tmp_path, arguments, complaint):
    with a_run(
        tmp_path, swarm_manifest("sys.exit(1)", particles={"failurePolicy": {"maxFailuresPerParticle": 0}})
    ) as run:
        assert run.ends()[0] == 1
    refused = swarm("run", "--resume", run.folder, *arguments)
    assert (refused.returncode, complaint in refused.stderr) == (2, True), refused.stderr
    nowhere = swarm("run", "--resume", tmp_path)
    assert (nowhere.returncode, "is not the folder of a run" in nowhere.stderr) == (2, True)
