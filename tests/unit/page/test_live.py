"""The live page: what can be read on it, at which size, and that it leaves a terminal as it was."""

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import time

import pytest
from rich.console import Console

from swarm_api.status import JobState
from swarm_operator.page.forecast import Forecast
from swarm_operator.page.live import LivePage
from swarm_operator.plan.facts import Event
from unit.page import page_builders as build
from unit.page.page_builders import START, TRACEBACK, text_of, told, view

SITUATIONS = {
    "starting": (
        build.starting(),
        ["● Starting", "PSOPS every 10 steps", "0/4 particles", "Not Running  0 of 4 particles have attached"],
        ["ETA", "samples/s"],
    ),
    "running": (
        build.running(),
        [
            "mnist",
            "● Running",
            "2:14",
            "42 %  3.1k samples/s     ETA 1:32",
            "round 1,210   4/4 particles",
            "best loss 0.1002 (particle 3)",
            "1 replacement",
            "3    1    1,200   0.1300      -  Running, best",
            "1    1    1,200   0.1100      2  Running",
            "2    2    1,200   0.1200      -  Running",
        ],
        ["Accepted", "all is well"],
    ),
    "degraded": (
        build.degraded(),
        [
            "● Degraded",
            "2/4 particles",
            "0.1000      -  Running   node-7",
            "Back-off after exit 1, 2 failures",
            "Quarantined, 4 failures: OOMKilled",
            "NothingKept  neither checkpoint nor output is set",
            "Degraded  2 of 4 particles train; particle 1 starts again in 4 s",
            "ETA 1:32",
        ],
        ["Not Running"],
    ),
    "waiting": (
        build.waiting(),
        [
            "● Waiting",
            "1/3 particles",
            "Starting again after SIGKILL",
            "Not Running  1 particle trains and minReplicas",
        ],
        ["ETA"],
    ),
    "complete": (
        build.complete(),
        ["● Complete", "3:21", "100 %", "4/4 particles", "Finished, best", "the model is in runs/mnist/model"],
        ["ETA", "samples/s", "Not Running"],
    ),
    "failed": (
        build.failed(),
        [
            "● Failed",
            "1:03",
            "Quarantined, 4 failures: exit 1",
            "Failed  particle 1 ended with exit 1 again",
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x784 and 728x128)",
        ],
        ["ETA", "Not Running"],
    ),
}


def spelled_narrowly(line):
    """The columns of a wide table as far apart as those of a narrow one."""
    return " ".join(line.split())


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (80, None)])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_a_person_can_read_what_goes_on(situation, width, height):
    job, expected, absent = SITUATIONS[situation]
    events = told("particle 0 attached", "particle 1 was killed")
    lines = text_of(view(job, events=events, remaining=92), width=width, height=height)
    page = spelled_narrowly(" ".join(lines))
    for text in [*expected, "particle 0 attached", "particle 1 was killed"]:
        assert spelled_narrowly(text) in page
    for text in absent:
        assert text not in page
    assert max(map(len, lines)) <= width
    assert height is None or len(lines) <= height


def test_before_the_first_particle_there_is_a_page():
    lines = text_of(view(build.job(JobState.PENDING)), height=24)
    assert "● Pending" in lines[0]
    assert not any("particle  inc" in line for line in lines)


def test_of_too_many_particles_the_best_and_the_troubled_stay():
    many = [build.particle(index, is_best=index == 30) for index in range(32)]
    many[29] = build.particle(29, "BackOff", failures=1, last_exit_code=-9)
    many[31] = build.particle(31, "Quarantined", failures=4, last_exit_code=1)
    missing = build.condition("Degraded", "Missing", "2 are away")
    job = build.job(particles=many, conditions=[missing], training=build.TRAINING)
    lines = text_of(view(job, events=told(*"abcdef")), height=24)
    assert len(lines) <= 24
    shown = [int(line.split()[0]) for line in lines if line.split()[:1] and line.split()[0].isdecimal()]
    assert shown == sorted(shown)
    assert {29, 30, 31} < set(shown)
    assert any(line.strip() == f"and {32 - len(shown)} more" for line in lines)
    assert any("2 are away" in line for line in lines)
    assert [line[-1] for line in lines[-3:]] == ["d", "e", "f"]


def test_particles_that_the_status_leaves_out_are_counted():
    job = build.job(particles=[build.particle(7, is_best=True)], desired=1000)
    assert any("and 999 more" in line for line in text_of(view(job), height=24))


@pytest.mark.parametrize(("width", "height"), [(30, 6), (20, 3), (60, 10), (300, 100)])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_no_size_of_terminal_breaks_the_page(situation, width, height):
    lines = text_of(view(SITUATIONS[situation][0], events=told("one", "two")), width=width, height=height)
    assert max(map(len, lines)) <= min(width, 110)


def test_a_long_message_keeps_its_beginning_and_its_end():
    message = "\n".join(["it failed:", *(f"  frame {number}" for number in range(50)), "ValueError: here"])
    job = build.job(JobState.FAILED, conditions=[build.condition("Failed", "TooManyFailures", message)])
    lines = text_of(view(job, events=told("one", "two", "three")), height=24)
    assert len(lines) <= 24
    page = "\n".join(lines)
    assert "it failed: …" in page
    assert "ValueError: here" in page
    assert "frame 20" not in page
    assert "three" in page


def test_events_are_one_line_each_and_whole_at_the_end():
    long = "particle 1 failed:\nTraceback\n  File\n" + "RuntimeError: " + "out of memory " * 8 + "indeed"
    events = told(*"abcdefgh", long)
    live = text_of(view(build.running(), events=events), height=24)
    assert live[-1].endswith("…")
    assert "particle 1 failed: RuntimeError: out of memory" in live[-1]
    assert [line[-1] for line in live[-6:-1]] == list("defgh")
    assert text_of(view(build.running(), events=events))[-1].endswith("indeed")


def test_output_of_scripts_cannot_garble_the_page():
    message = "\x1b[31mred\x1b[0m\x1b]0;title\x07 [bold]no markup[/bold]\n10 %\r20 %\r30 %\a\r\n\ttab \udcff end"
    job = build.job(JobState.FAILED, conditions=[build.condition("Failed", "TooManyFailures", message)])
    page = "\n".join(text_of(view(job, events=told(message))))
    assert "Failed  red [bold]no markup[/bold]\n 30 %\n  tab ? end" in page
    assert not set(page) & {chr(code) for code in (*range(10), *range(11, 32))}


def test_the_forecast_follows_the_last_changes():
    forecast = Forecast()
    forecast.observe(0, 0.0)
    forecast.observe(1, 100.0)  # a slow start does not count
    assert forecast.remaining(100.0) is None
    for second in range(1, 31):
        forecast.observe(1 + second, 100.0 + 2 * second)
    assert forecast.remaining(160.0) == pytest.approx(138)
    assert forecast.remaining(161.0) == pytest.approx(137)
    assert forecast.remaining(500.0) == pytest.approx(136)  # it stalls: what is left does not shrink any more
    forecast.observe(10, 600.0)
    assert forecast.remaining(600.0) is None


def console(height=24):
    return Console(
        file=io.StringIO(), force_terminal=True, width=80, height=height, legacy_windows=False, color_system=None,
        _environ={},
    )  # fmt: skip


def test_closing_leaves_the_last_state_on_the_usual_screen():
    on = console()
    page = LivePage(on, now=lambda: START + 134)
    page.event(Event(reason="Attached", message="particle 0 attached"))
    page.update(build.running())
    page.close()
    page.close()
    page.update(build.complete())
    written = on.file.getvalue()
    assert written.count("\x1b[?1049h") == written.count("\x1b[?1049l") == 1
    assert written.index("\x1b[?25l") < written.index("\x1b[?25h")
    last = written.partition("\x1b[?1049l")[2]
    assert "● Running" in last
    assert "particle 0 attached" in last
    assert "\x1b" not in last


SCRIPT = """
import time
from unit.page import page_builders as build
from swarm_operator.page import open_page
from swarm_operator.page.live import LivePage
page = open_page(terminal=True)
assert isinstance(page, LivePage)
began = time.monotonic()
try:
    page.update(build.running())
    time.sleep(1.1)
    print("a stray word")
    raise KeyError("the training is lost")
finally:
    page.close()
    print(f"open for {time.monotonic() - began} seconds")
"""


def test_an_exception_is_read_on_a_restored_terminal():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {**os.environ, "TERM": "xterm", "PYTHONPATH": os.pathsep.join(sys.path)}
    for name in ("COLUMNS", "LINES"):
        environment.pop(name, None)
    child = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    written = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            more = os.read(ours, 65536)
        except OSError:  # how Linux says that nobody holds the other end any more
            break
        if not more:
            break
        written += more
    os.close(ours)
    assert child.wait(10) == 1
    live, _, after = written.decode().partition("\x1b[?1049l")
    seconds = float(after.partition("open for ")[2].split()[0])
    assert 2 <= live.count("● ") <= 4 * seconds + 2  # one for the stray word, and its line break
    assert "● Running" in after
    assert "KeyError: 'the training is lost'" in after
    assert "\x1b[?25h" in written.decode()
    assert after.index("● Running") < after.index("Traceback")


def test_failed_pages_show_the_last_output():
    assert TRACEBACK.splitlines()[-1] in "\n".join(text_of(view(build.failed()), height=24))
