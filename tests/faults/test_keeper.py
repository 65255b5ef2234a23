"""Nothing that a child starts outlives it, whoever dies first; and how it ended is told truly."""

import asyncio
import os
import signal
import sys
import uuid

import pytest

from support.local import FAMILY, FAMILY_SIZE, MARK, becomes_true, marked, python
from swarm_operator.backends.local.child import Child, Launch

pytestmark = pytest.mark.faults


def with_child(tmp_path, command, scenario, **environment):
    """Run a command under a keeper; `scenario(child, next_change)` drives it. The ended child."""

    async def body():
        changed = asyncio.Event()
        launch = Launch(argv=command, env={**os.environ, **environment}, cwd=tmp_path)
        child = Child(launch, tmp_path / "log", changed.set)

        async def until(condition):
            while not condition():
                changed.clear()
                await changed.wait()

        await scenario(child, until)
        await child.wait()
        return child

    return asyncio.run(asyncio.wait_for(body(), 20))


async def started(child, until):
    await until(lambda: child.pid)


@pytest.mark.parametrize(
    ("command", "code", "failure"),
    [
        (["true"], 0, ""),
        (["sh", "-c", "exit 3"], 3, ""),
        (["sh", "-c", "kill -SEGV $$"], -signal.SIGSEGV, ""),
        (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL, ""),
        (["no-such-program"], 127, "no-such-program: No such file or directory"),
        (["/"], 127, "/: Permission denied"),
    ],
)
def test_exit_codes_signals_and_programs_that_cannot_run_are_told_apart(tmp_path, command, code, failure):
    child = with_child(tmp_path, command, lambda *_: asyncio.sleep(0))
    assert (child.exit_code, child.failure, child.abandoned) == (code, failure, False)


def test_output_goes_to_the_log_and_the_child_gets_no_input_and_no_pipe_of_ours(tmp_path):
    script = "import os, sys; print(repr(sys.stdin.read()), sorted(os.listdir('/proc/self/fd'))); sys.exit('words')"
    with_child(tmp_path, python(script), started)
    # 3 is the folder that is being listed.
    assert (tmp_path / "log").read_text() == "'' ['0', '1', '2', '3']\nwords\n"


def test_signals_have_their_usual_meaning_in_the_child(tmp_path):
    script = "import signal; print(*[n for n in range(1, 32) if signal.getsignal(n) == signal.SIG_IGN])"
    with_child(tmp_path, [sys.executable, "-I", *python(script)[1:]], started)
    ignored_by_python_itself = {signal.SIGPIPE, signal.SIGXFSZ}
    assert set(map(int, (tmp_path / "log").read_text().split())) <= ignored_by_python_itself


@pytest.mark.parametrize("how", ["it ends", "it is stopped", "it is killed", "its pipe closes"])
def test_descendants_go_with_the_child(tmp_path, how):
    mark = str(uuid.uuid4())
    go = tmp_path / "go"
    script = f"{FAMILY}\n    while not os.path.exists({str(go)!r}): time.sleep(0.02)\n    os._exit(7)"

    async def scenario(child, until):
        await becomes_true(lambda: len(marked(mark)) == FAMILY_SIZE)
        match how:
            case "it ends":
                go.touch()
            case "it is stopped":
                child.stop(grace=5)
            case "it is killed":
                child.signal(signal.SIGKILL)
            case "its pipe closes":
                child.kill()

    child = with_child(tmp_path, python(script), scenario, **{MARK: mark})
    assert child.exit_code == {"it ends": 7, "it is stopped": -signal.SIGTERM}.get(how, -signal.SIGKILL)
    assert not marked(mark)


def test_a_child_may_use_its_grace_and_is_killed_after_it(tmp_path):
    patient = "import signal, time; signal.signal(15, lambda *_: exit(0)); print('up', flush=True); time.sleep(300)"
    deaf = "import signal, time; signal.signal(15, lambda *_: None); print('up', flush=True)\nwhile 1: time.sleep(300)"

    async def scenario(child, until):
        await becomes_true(lambda: "up" in (tmp_path / "log").read_text())
        child.stop(grace=0.3)

    assert with_child(tmp_path, python(patient), scenario).exit_code == 0
    (tmp_path / "log").unlink()
    assert with_child(tmp_path, python(deaf), scenario).exit_code == -signal.SIGKILL


def test_a_keeper_that_is_killed_takes_the_child_with_it(tmp_path):
    mark = str(uuid.uuid4())

    async def scenario(child, until):
        await until(lambda: child.pid)
        child.kill_keeper()
        await child.wait()
        await becomes_true(lambda: not marked(mark))

    child = with_child(tmp_path, ["sleep", "300"], scenario, **{MARK: mark})
    assert child.abandoned
    assert child.exit_code is None
