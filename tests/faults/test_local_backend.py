"""Local processes as the plan sees them: created, ended, killed from outside, and the report beside them."""

import asyncio
import json
import os
import signal
import subprocess
import uuid
from contextlib import asynccontextmanager

import pytest

from support.local import FAMILY, FAMILY_SIZE, MARK, becomes_true, manifest, marked, python, swarm_manifest, written
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.report import PROTOCOL_VERSION, Report
from swarm_operator.backends.local.backend import LocalBackend, UnknownMemberError
from swarm_operator.backends.local.folder import RunFolder
from swarm_operator.cli.manifest import load
from swarm_operator.plan.actions import Create, Delete
from swarm_operator.plan.facts import Phase, Role

pytestmark = pytest.mark.faults

SYNCHRONIZER = Create(role=Role.SYNCHRONIZER, incarnation=1)


def particle(index=0, incarnation=1):
    return Create(role=Role.PARTICLE, index=index, incarnation=incarnation)


class Driver:
    """Drives a backend by hand, in place of a plan."""

    def __init__(self, job, folder, backend):
        self.job, self.folder, self.backend = job, folder, backend

    async def apply(self, *actions):
        await self.backend.apply(self.job, actions)

    async def until(self, condition):
        """The members by (role, index, incarnation), as soon as the condition holds of them."""
        while True:
            self.backend.changed.clear()
            observed = await self.backend.observe(self.job)
            members = {(member.role.value, member.index, member.incarnation): member for member in observed.members}
            if found := condition(members):
                return members if found is True else found
            await self.backend.changed.wait()

    async def ended(self, index=0, incarnation=1):
        def it(members):
            found = members["particle", index, incarnation]
            return found.ended_phase and found

        return await self.until(it)

    async def running(self, *indices):
        return await self.until(lambda members: all(members["particle", i, 1].phase is Phase.RUNNING for i in indices))

    async def report(self):
        """The observed report or the reason why there is none."""
        while True:
            self.backend.changed.clear()
            observed = await self.backend.observe(self.job)
            if observed.report or observed.report_error:
                return observed.report or observed.report_error
            await self.backend.changed.wait()


def drive(tmp_path, data, scenario):
    """Run a scenario with a backend for this manifest."""

    async def body():
        async with a_backend(tmp_path, data) as driver:
            await scenario(driver)

    asyncio.run(asyncio.wait_for(body(), 30))


@asynccontextmanager
async def a_backend(tmp_path, data, name="run"):
    loaded = load(written(tmp_path, data))
    assert not loaded.recipes.problems
    folder = RunFolder.create("job", tmp_path / name)
    backend = LocalBackend(loaded.job, folder, loaded.recipes, grace=2)
    async with backend.running():
        yield Driver(loaded.job, folder, backend)


def test_a_particle_is_told_who_it_is_and_where_things_are(tmp_path):
    script = (
        "import json, os; print(json.dumps({k: v for k, v in os.environ.items() if k[:6] in ('SWARM_', 'OMP_NU')}))"
    )

    async def scenario(driver):
        await driver.apply(particle(2, incarnation=4))
        member = await driver.ended(2, 4)
        told = json.loads(driver.folder.log("job-particle-2-4").read_text())
        internal = driver.folder.internal
        assert told == {
            "SWARM_JOB_NAME": "job",
            "SWARM_JOB_UID": driver.job.metadata.uid,
            "SWARM_NAMESPACE": "default",
            "SWARM_PARTICLE_INDEX": "2",
            "SWARM_INCARNATION": "4",
            "SWARM_INSTANCE_UID": member.uid,
            "SWARM_SYNCHRONIZER_ADDRESS_FILE": str(internal / "synchronizer.json"),
            "SWARM_SECRET_FILE": str(internal / "link-secret"),
            "SWARM_OUTPUT_DIR": str(driver.folder.path),
            "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // 1)),
        }
        assert (internal / "link-secret").stat().st_mode & 0o777 == 0o600
        assert (internal / "link-secret").read_text() != (internal / "report-token").read_text()

    drive(tmp_path, manifest(script), scenario)


def test_the_message_of_a_failure_is_the_end_of_its_output(tmp_path):
    script = "import sys; print('x' * 5000); [print('line', i) for i in range(50)]; sys.exit('the last word')"

    async def scenario(driver):
        await driver.apply(particle())
        member = await driver.ended()
        lines = member.message.splitlines()
        assert (member.exit_code, member.reason, member.disrupted) == (1, "Error", False)
        assert (len(lines), lines[0], lines[-1]) == (20, "line 31", "the last word")

    drive(tmp_path, manifest(script), scenario)


def test_a_changed_job_reaches_the_synchronizer_that_runs(tmp_path):
    async def scenario(driver):
        await driver.apply(SYNCHRONIZER)
        while (report := await driver.report()) and not isinstance(report, Report):
            await driver.backend.changed.wait()
        assert report.settings_generation == 1
        spec = driver.job.spec.model_copy(update={"algorithm": Algorithm(name=AlgorithmName.EASGD)})
        metadata = driver.job.metadata.model_copy(update={"generation": 2})
        driver.job = driver.job.model_copy(update={"spec": spec, "metadata": metadata})
        while (await driver.report()).settings_generation != 2:
            await driver.backend.changed.wait()
        assert (await driver.report()).incarnation == 1
        told = json.loads(driver.folder.settings.read_text())
        assert told["algorithm"]["name"] == "EASGD"

    drive(tmp_path, swarm_manifest("pass"), scenario)


def test_what_was_done_already_is_done_once(tmp_path):
    async def scenario(driver):
        await driver.apply(particle(), particle())
        members = await driver.running(0)
        await driver.apply(particle())
        assert len(members) == 1
        uid = members["particle", 0, 1].uid
        gone = Delete(role=Role.PARTICLE, incarnation=1, uid=uid)
        await driver.apply(gone, gone)
        assert await driver.until(lambda members: not members) == {}
        await driver.apply(gone)

    drive(tmp_path, manifest(["sleep", "300"]), scenario)


def test_swarm_kill_is_free_and_other_signals_are_not(tmp_path):
    async def scenario(driver):
        await driver.apply(particle(0), particle(1), particle(2))
        members = await driver.running(0, 1, 2)
        driver.backend.kill("particle-0")
        driver.backend.kill("job-particle-1-1", signal.SIGTERM)
        os.kill(json.loads(driver.folder.run.read_text())["members"][2]["pid"], signal.SIGKILL)
        ends = [await driver.ended(index) for index in range(len(members))]
        assert [(end.exit_code, end.reason, end.disrupted) for end in ends] == [
            (-9, "Killed", True),
            (-15, "Killed", True),
            (-9, "Killed", False),
        ]
        with pytest.raises(UnknownMemberError, match=r"particle-0 does not run; running: nothing"):
            driver.backend.kill("particle-0")

    drive(tmp_path, manifest(["sleep", "300"]), scenario)


def test_a_killed_keeper_leaves_nothing_behind_and_everyone_else_alone(tmp_path):
    """Its orphans come to us, where they have siblings that are none of its."""
    mark = str(uuid.uuid4())
    script = f"import time\n{FAMILY}\n    time.sleep(300)"
    data = manifest(python(script), particles={"replicas": 2}, container={"env": [{"name": MARK, "value": mark}]})
    bystander = subprocess.Popen(["sh", "-c", "sleep 300 & wait"], env={**os.environ, MARK: f"{mark}-by"})

    async def scenario(driver):
        await driver.apply(particle(0), particle(1))
        await driver.running(0, 1)
        await becomes_true(lambda: len(marked(mark)) == 2 * FAMILY_SIZE)
        os.kill(json.loads(driver.folder.run.read_text())["members"][0]["keeper"], signal.SIGKILL)
        member = await driver.ended(0)
        assert (member.exit_code, member.reason, member.disrupted) == (-9, "KeeperKilled", True)
        await becomes_true(lambda: len(marked(mark)) == FAMILY_SIZE)
        await driver.running(1)
        assert len(marked(f"{mark}-by")) == 2

    try:
        drive(tmp_path, data, scenario)
        assert not marked(mark)
        assert len(marked(f"{mark}-by")) == 2
    finally:
        for pid in marked(f"{mark}-by"):
            os.kill(pid, signal.SIGKILL)
        bystander.wait()


def test_gpus_are_dealt_out_whole_and_who_gets_none_waits(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    script = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], flush=True); time.sleep(300)"
    data = manifest(
        script,
        particles={"replicas": 3},
        container={"resources": {"limits": {"nvidia.com/gpu": 1}}},
        synchronizer={"template": {"spec": {"containers": [{"name": "trainer", "command": python(script)}]}}},
    )

    async def seen_by(driver, *names):
        logs = [driver.folder.log(name) for name in names]
        await becomes_true(lambda: all(log.read_text() for log in logs))
        return [log.read_text().strip() for log in logs]

    async def scenario(driver):
        await driver.apply(SYNCHRONIZER, particle(0), particle(1), particle(2))
        members = await driver.running(0, 1)
        third = members["particle", 2, 1]
        assert (third.phase, third.reason) == (Phase.PENDING, "Unschedulable")
        assert third.message == "needs 1 GPU, 0 of 2 free"
        names = ("job-particle-0-1", "job-particle-1-1", "job-synchronizer-1")
        assert await seen_by(driver, *names) == ["4", "7", ""]
        driver.backend.kill("particle-1")
        await driver.running(2)
        assert await seen_by(driver, "job-particle-2-1") == ["7"]

    drive(tmp_path, data, scenario)


REPORTING = """
import http.server, json, os
report = json.loads(os.environ["REPORT"]) | {"uid": os.environ.get("UID_SAID", os.environ["SWARM_JOB_UID"])}
token = open(os.environ["SWARM_REPORT_TOKEN_FILE"]).read()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.headers["X-Swarm-Token"] == token and self.path == "/report" else 403)
        self.end_headers()
        self.wfile.write(json.dumps(report).encode())
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
address = "127.0.0.1:%d" % server.server_port
with open(os.environ["SWARM_SYNCHRONIZER_ADDRESS_FILE"], "w") as file:
    json.dump({"address": address, "report": address}, file)
server.serve_forever()
"""


@pytest.mark.parametrize(
    ("report", "environment", "said"),
    [
        ({"incarnation": 1, "round": 5}, {}, "round 5"),
        ({"incarnation": 1}, {"UID_SAID": "other"}, "belongs to another run"),
        ({"incarnation": 1, "protocol": PROTOCOL_VERSION + 1}, {}, "update one"),
        ({"incarnation": "first"}, {}, "no valid report"),
    ],
)
def test_a_report_is_believed_if_it_is_of_this_run_and_version(tmp_path, report, environment, said):
    environment = {"REPORT": json.dumps({"protocol": PROTOCOL_VERSION} | report), **environment}
    container = {"name": "trainer", "command": python(REPORTING)}
    container["env"] = [{"name": name, "value": value} for name, value in environment.items()]
    data = manifest(["sleep", "300"], synchronizer={"template": {"spec": {"containers": [container]}}})

    async def scenario(driver):
        await driver.apply(SYNCHRONIZER)
        found = await driver.report()
        assert said in (f"round {found.round}" if isinstance(found, Report) else found)
        assert "report" in json.loads(driver.folder.run.read_text())["addresses"]

    drive(tmp_path, data, scenario)


def test_a_silent_synchronizer_does_not_delay_the_news_of_a_death(tmp_path):
    stuck = REPORTING.replace("server.serve_forever()", "import time; time.sleep(300)").replace(
        '("127.0.0.1", 0), Handler', '("127.0.0.1", 0), Handler, True'
    )
    container = {"name": "trainer", "command": python(stuck), "env": [{"name": "REPORT", "value": "{}"}]}
    data = manifest(["sleep", "300"], synchronizer={"template": {"spec": {"containers": [container]}}})

    async def scenario(driver):
        await driver.apply(SYNCHRONIZER, particle())
        await driver.running(0)
        assert "no report" in await driver.report()
        loop = asyncio.get_running_loop()
        began = loop.time()
        driver.backend.kill("particle-0")
        await driver.ended()
        assert loop.time() - began < 0.5

    drive(tmp_path, data, scenario)


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"command": ["no-such-program"]}, "no-such-program: No such file or directory"),
        ({"workingDir": "gone"}, "gone: No such file or directory"),
    ],
)
def test_what_cannot_be_started_is_a_failed_member(tmp_path, container, message):
    (tmp_path / "gone").mkdir()

    async def scenario(driver):
        (tmp_path / "gone").rmdir()
        await driver.apply(particle())
        member = await driver.ended()
        assert (member.phase, member.reason, member.exit_code) == (Phase.FAILED, "CannotStart", 127)
        assert member.message.endswith(message)

    drive(tmp_path, manifest(["true"], container=container), scenario)
