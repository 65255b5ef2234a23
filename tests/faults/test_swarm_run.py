"""`swarm run` as a person uses it, and what is left when it, or something below it, is killed."""

import json
import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from support.local import FAMILY, FAMILY_SIZE, marked, swarm_manifest
from support.processes import eventually
from support.runs import a_run, swarm

pytestmark = pytest.mark.faults

TRAINS_FOR_EVER = """
step = 0
while True:
    step += 1
    tell(step=step)
    time.sleep(0.05)
"""
TRAINS_AND_FINISHES = """
for step in range(1, 31):
    tell(step=step, progress=step / 30)
    time.sleep(0.05)
tell("Finished", step=30, progress=1.0)
"""
PUSHES_WHEN_TOLD_TO_STOP = f"""
signal.signal(signal.SIGTERM, lambda *_: print("pushed") or sys.exit(0))
{TRAINS_FOR_EVER}
"""
DEAF = f"""
signal.signal(signal.SIGTERM, lambda *_: None)
{TRAINS_FOR_EVER}
"""


class Screen:
    """All that a terminal is told to show."""

    def __init__(self, terminal):
        self._shown = b""
        self._reader = threading.Thread(target=self._read, args=(terminal,))
        self._reader.start()

    def all(self):
        """What was shown until the last program left."""
        self._reader.join()
        return self._shown.decode().replace("\r\n", "\n")

    def _read(self, terminal):
        with suppress(OSError):  # how a terminal says that nobody is left
            while data := terminal.read(65536):
                self._shown += data


def test_a_swarm_trains_loses_a_particle_and_completes(tmp_path):
    with a_run(tmp_path, swarm_manifest(TRAINS_AND_FINISHES, particles={"replicas": 3}), "--kill", "1@20%") as run:
        code, output = run.ends()
    assert code == 0, output
    assert "killed particle-1, incarnation 1, at 20 % as asked" in output
    assert "job: Complete after 0:0" in output
    assert f"model    {run.folder}/model.safetensors" in output
    status = run.status
    assert (status["state"], status["training"]["progressPercent"]) == ("Complete", 100)
    assert [status["attempts"][key]["incarnation"] for key in ("0", "1", "2", "synchronizer")] == [1, 2, 1, 1]
    assert status["attempts"]["1"]["failures"] == []
    events = [json.loads(line)["reason"] for line in (run.folder / "events.jsonl").read_text().splitlines()]
    assert events.index("GameDay") < events.index("ParticleReplaced") < events.index("JobComplete")
    assert sorted(path.name for path in (run.folder / "logs").iterdir()) == [
        "job-particle-0-1.log",
        "job-particle-1-1.log",
        "job-particle-1-2.log",
        "job-particle-2-1.log",
        "job-synchronizer-1.log",
    ]
    assert "Complete" in swarm("status", run.folder).stdout
    gone = swarm("kill", "--dir", run.folder, "particle-0")
    assert (gone.returncode, gone.stdout) == (1, "")


def test_the_last_words_of_a_script_that_fails_stand_on_the_screen(tmp_path):
    script = "print('epoch 0'); raise ValueError('no such data set')"
    particles = {"replicas": 2, "failurePolicy": {"maxFailuresPerParticle": 0}}
    with a_run(tmp_path, swarm_manifest(script, particles=particles)) as run:
        code, output = run.ends()
    assert code == 1
    end = output[output.index("particle 0, particle 1 ended with exit code 1:") :]
    assert "    epoch 0\n    Traceback" in end
    assert "    ValueError: no such data set\n" in end
    assert "job: Failed after" in end
    assert "model    none was written" in end


def test_nothing_outlives_a_swarm_run_that_is_killed(tmp_path):
    manifest = swarm_manifest(f"{FAMILY}\n    {'time.sleep(300)'}", particles={"replicas": 2})
    with a_run(tmp_path, manifest) as run:
        eventually(lambda: len(marked(run.mark)) == 2 * FAMILY_SIZE + 3, "both families, the synchronizer, swarm run")
        run.process.kill()
        eventually(lambda: not marked(run.mark), "nothing left", seconds=5)
        assert "swarm run is gone" in swarm("status", run.folder).stdout


def test_killed_keepers_cost_a_replacement_and_leave_nothing_behind(tmp_path):
    script = f"{FAMILY}\n    {'while True: tell(); time.sleep(0.05)'}"
    with a_run(tmp_path, swarm_manifest(script, particles={"replicas": 2}), "--grace", "1") as run:
        run.trains()
        first = run.members()
        for _, keeper in first.values():
            os.kill(keeper, signal.SIGKILL)
        run.trains(_0=2, _1=2, synchronizer=2)
        eventually(lambda: len(marked(run.mark)) == 2 * FAMILY_SIZE + 3, "only the replacements")
        assert not any(attempt["failures"] for attempt in run.status["attempts"].values())
        run.process.send_signal(signal.SIGINT)
        assert run.ends()[0] == 130


def test_ctrl_c_in_a_terminal_stops_particles_then_the_synchronizer_and_keeps_the_model(tmp_path):
    """A terminal sends Ctrl-C to the whole foreground group: no particle may be in it."""
    keyboard, terminal = os.openpty()
    manifest = swarm_manifest(PUSHES_WHEN_TOLD_TO_STOP, particles={"replicas": 2})
    with os.fdopen(keyboard, "r+b", buffering=0) as keyboard_and_screen, a_run(tmp_path, manifest, on=terminal) as run:
        shown = Screen(keyboard_and_screen)
        run.trains()
        keyboard_and_screen.write(b"\x03")
        code, _ = run.ends()
        output = shown.all()
    assert code == 130
    assert "\x1b[?1049h" in output, "a live page"
    assert output.rindex("\x1b[?25h") < output.index("job: stopped before its end after"), "the cursor is back"
    assert (run.folder / "logs" / "job-particle-0-1.log").read_text() == "pushed\n"
    assert f"model    {run.folder}/model.safetensors" in output


def test_a_second_ctrl_c_does_not_wait_for_anyone(tmp_path):
    with a_run(tmp_path, swarm_manifest(DEAF, particles={"replicas": 2}), "--grace", "60") as run:
        run.trains()
        run.process.send_signal(signal.SIGINT)
        events = run.folder / "events.jsonl"
        eventually(lambda: "Stopping" in events.read_text(), "the stop")
        began = time.monotonic()
        run.process.send_signal(signal.SIGINT)
        assert run.ends()[0] == 130
        assert time.monotonic() - began < 5


def test_two_runs_do_not_disturb_each_other(tmp_path):
    with (
        a_run(tmp_path / "a", swarm_manifest(TRAINS_FOR_EVER, particles={"replicas": 2})) as doomed,
        a_run(tmp_path / "b", swarm_manifest(TRAINS_AND_FINISHES, particles={"replicas": 2})) as other,
    ):
        doomed.trains()
        doomed.process.kill()
        code, output = other.ends()
        assert code == 0, output
        assert {each["incarnation"] for each in other.status["attempts"].values()} == {1}


def test_swarm_kill_reaches_a_run_in_a_deep_folder_and_counts_as_no_failure(tmp_path):
    deep = tmp_path / ("x" * 120)
    with a_run(deep, swarm_manifest(TRAINS_FOR_EVER, particles={"replicas": 2}), "--grace", "1") as run:
        run.trains()
        sent = swarm("kill", "--dir", run.folder, "particle-1")
        assert (sent.returncode, sent.stdout) == (0, "sent SIGKILL to particle 1, incarnation 1\n")
        run.trains(_1=2)
        attempt = run.status["attempts"]["1"]
        assert (attempt["failures"], attempt["lastExitCode"]) == ([], -9)
        wrong = swarm("kill", "--dir", run.folder, "particle-7")
        assert wrong.returncode == 1
        assert "particle-7 does not run; running: particle-0, particle-1, synchronizer" in wrong.stderr
        stopped = swarm("kill", "--dir", run.folder, "synchronizer", "--signal", "TERM")
        assert stopped.returncode == 0
        run.trains(_1=2, synchronizer=2)
        run.process.send_signal(signal.SIGINT)
        assert run.ends()[0] == 130
