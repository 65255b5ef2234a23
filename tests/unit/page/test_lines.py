"""Plain lines: what a log of a pipe or CI holds."""

import io
import re

import pytest

from swarm_api.status import JobState
from swarm_operator.page import open_page
from swarm_operator.page.lines import LinePage
from swarm_operator.page.words import clock, count, duration, loss_text
from swarm_operator.plan.facts import Event
from unit.page import page_builders as build
from unit.page.page_builders import START, TRACEBACK


class Desk:
    """A page on paper and a clock that is set by hand."""

    def __init__(self, encoding=None):
        self.paper = io.TextIOWrapper(io.BytesIO(), encoding=encoding) if encoding else io.StringIO()
        self.now = START
        self.page = LinePage(self.paper, now=lambda: self.now)

    def lines(self):
        self.paper.seek(0)
        return self.paper.read().splitlines()


def running(**training):
    return build.job(particles=[build.particle(index) for index in range(4)], training={**build.TRAINING, **training})


def test_a_line_tells_time_state_and_progress():
    desk = Desk()
    desk.page.update(running(samples_per_second=3123.0))
    assert desk.lines() == [
        f"{clock(START)} Running  round 1,210  4/4 particles  loss 0.1002  42 %  3.1k samples/s",
    ]


def test_progress_comes_at_most_every_five_seconds():
    desk = Desk()
    for tick in range(41):
        desk.now = START + tick / 4
        desk.page.update(running(round=1 + tick))
    assert [re.search(r"round (\d+)", line)[1] for line in desk.lines()] == ["1", "21", "41"]


def test_a_change_of_state_comes_at_once():
    desk = Desk()
    for state in (JobState.PENDING, JobState.STARTING, JobState.RUNNING):
        desk.page.update(build.job(state))
    assert [line.split()[1] for line in desk.lines()] == ["Pending", "Starting", "Running"]


def test_nothing_new_is_not_said_again():
    desk = Desk()
    for _ in range(3):
        desk.page.update(running())
        desk.now += 10
    desk.page.close()
    desk.page.close()
    assert len(desk.lines()) == 1


def test_the_end_is_said_with_samples_and_time():
    desk = Desk()
    desk.page.update(build.complete())
    desk.page.close()
    assert [line[9:] for line in desk.lines()] == [
        "Complete  round 1,210  4/4 particles  loss 0.1002  100 %  123k samples  in 3:21",
        "Complete: the model is in runs/mnist/model.safetensors",
    ]


def test_warnings_say_so():
    desk = Desk()
    desk.page.event(Event(reason="ParticleLost", message="particle 2 was lost", regarding="mnist-particle-2-1"))
    desk.page.event(Event(reason="ParticleFailed", message=TRACEBACK, warning=True, regarding="mnist-particle-1-4"))
    desk.page.event(Event(reason="JobResumed", message=""))
    lines = [line[9:] for line in desk.lines()]
    assert lines[0] == "ParticleLost mnist-particle-2-1: particle 2 was lost"
    assert lines[1].startswith("WARNING ParticleFailed mnist-particle-1-4: particle 1 ended")
    assert lines[2:-1] == TRACEBACK.splitlines()[1:]
    assert lines[-1] == "JobResumed"


def test_a_condition_is_told_when_it_turns_bad():
    desk = Desk()
    for _ in range(2):
        desk.page.update(build.degraded())
    desk.page.update(build.running())
    desk.page.update(build.degraded())
    told = [line[9:] for line in desk.lines() if "WARNING" in line]
    assert [line.split()[1] for line in told] == ["Degraded:", "NothingKept:"] * 2


def test_what_an_event_just_said_a_condition_does_not_repeat():
    desk = Desk()
    desk.page.event(Event(reason="JobFailed", message=TRACEBACK, warning=True))
    desk.page.update(build.failed())
    text = "\n".join(desk.lines())
    assert text.count("RuntimeError") == 1
    assert "● " not in text


def test_what_every_start_goes_through_is_no_warning():
    desk = Desk()
    desk.page.update(build.starting())
    assert [line[9:] for line in desk.lines()] == [
        "Starting  0/4 particles",
        "Not Running: 0 of 4 particles have attached",
    ]


def test_words_that_the_paper_cannot_hold_do_not_end_the_run():
    desk = Desk(encoding="ascii")
    desk.page.event(Event(reason="ParticleFailed", message="naïve \udcff 🐝 \x1b[31mred"))
    assert desk.lines()[0].endswith("na?ve ? ? red")


def test_a_pipe_gets_lines():
    assert isinstance(open_page(terminal=False), LinePage)


def test_a_terminal_that_cannot_be_drawn_on_gets_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(open_page(terminal=True), LinePage)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1.0k"),
        (3123, "3.1k"),
        (9951, "10k"),
        (999499, "999k"),
        (999900, "1.0M"),
        (12345678, "12M"),
        (2500000000000.0, "2.5T"),
    ],
)
def test_counts_have_three_digits(number, text):
    assert count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (59.6, "1:00"), (723, "12:03"), (3723, "1:02:03"), (176_523, "2 d 01:02:03")],
)
def test_durations_are_read_as_on_a_watch(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("loss", "text"), [(None, "-"), (0.0, "0.0000"), (0.12345, "0.1235"), (2.5e-5, "2.50e-05"), (3e6, "3.00e+06")]
)
def test_losses_keep_their_digits(loss, text):
    assert loss_text(loss) == text
