"""Jobs as a person meets them, and what is made of them on paper."""

import io
from datetime import UTC, datetime

from rich.console import Console
from rich.segment import Segment

from swarm_api.job import SwarmTrainingJob
from swarm_api.status import Condition, JobState, JobStatus, ParticleCounts, ParticleStatus, Recovery, Training
from swarm_operator.page.view import Told, View
from swarm_operator.plan.facts import Event

START = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC).timestamp()


def iso(when: float) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat().replace("+00:00", "Z")


def condition(kind, reason, message, status="True"):
    return Condition(type=kind, status=status, reason=reason, message=message, last_transition_time=iso(START))


def particle(index, phase="Running", **fields):
    running = {"incarnation": 1, "step": 1200, "loss": 0.1 + index / 100} if phase == "Running" else {"incarnation": 1}
    return ParticleStatus(index=index, phase=phase, **{**running, **fields})


def job(state=JobState.RUNNING, *, particles=(), conditions=(), training=None, recovery=None, ended=None, desired=None):
    """A job that began at START; `training` and `recovery` are fields, `ended` is Unix seconds."""
    status = JobStatus(
        state=state,
        start_time=None if state is JobState.PENDING else iso(START),
        completion_time=None if ended is None else iso(ended),
        conditions=tuple(conditions),
        particles=ParticleCounts(
            desired=len(particles) if desired is None else desired,
            ready=sum(each.phase in ("Running", "Finished") for each in particles),
        ),
        particle_statuses=tuple(particles),
        training=Training(**(training or {})),
        recovery=Recovery(**(recovery or {})),
    )
    return SwarmTrainingJob(
        metadata={"name": "mnist"},
        spec={
            "algorithm": {"name": "PSOPS", "syncPeriod": 10},
            "particles": {"replicas": 4, "template": {"spec": {"containers": [{"name": "trainer"}]}}},
        },
        status=status,
    )


TRAINING = {
    "round": 1210,
    "step": 12_100,
    "samples_seen": 123_456,
    "best_loss": 0.1002,
    "best_particle": 3,
    "progress_percent": 42,
    "samples_per_second": 3123.0,
}

TRACEBACK = """particle 1 ended with exit 1 again and again; its last lines:
Traceback (most recent call last):
  File "train.py", line 31, in <module>
    loss = criterion(model(x), y)
RuntimeError: mat1 and mat2 shapes cannot be multiplied (64x784 and 728x128)"""


def starting():
    return job(
        JobState.STARTING,
        particles=[particle(0, "Starting"), particle(1, "Starting"), particle(2, "Pending"), particle(3, "Pending")],
        conditions=[condition("Running", "Starting", "0 of 4 particles have attached", "False")],
    )


def running():
    return job(
        particles=[particle(0), particle(1, staleness_rounds=2), particle(2, incarnation=2), particle(3, is_best=True)],
        conditions=[condition("Accepted", "Valid", ""), condition("Running", "Training", "all is well")],
        training=TRAINING,
        recovery={"count": 1},
    )


def degraded():
    return job(
        JobState.DEGRADED,
        particles=[
            particle(0, node="node-7"),
            particle(1, "BackOff", incarnation=3, failures=2, last_exit_code=1, last_reason="Error", step=840),
            particle(2, "Quarantined", incarnation=4, failures=4, last_exit_code=-9, last_reason="OOMKilled", step=90),
            particle(3, is_best=True),
        ],
        conditions=[
            condition("Running", "Training", "2 of 4 particles train"),
            condition("Degraded", "ParticlesMissing", "2 of 4 particles train; particle 1 starts again in 4 s"),
            condition(
                "NothingKept", "NoOutput", "neither checkpoint nor output is set: the trained model will be lost"
            ),
        ],
        training=TRAINING,
    )


def waiting():
    return job(
        JobState.WAITING,
        particles=[particle(0), particle(1, "Starting", incarnation=2, last_exit_code=-9), particle(2, "Pending")],
        conditions=[condition("Running", "BelowMinimum", "1 particle trains and minReplicas is 2", "False")],
        training=TRAINING,
    )


def complete():
    return job(
        JobState.COMPLETE,
        particles=[particle(index, "Finished", step=30_000, loss=0.02, is_best=index == 2) for index in range(4)],
        conditions=[
            condition("Running", "Finished", "", "False"),
            condition("Complete", "Finished", "the model is in runs/mnist/model.safetensors"),
        ],
        training={**TRAINING, "progress_percent": 100, "samples_per_second": 0.0},
        ended=START + 201,
    )


def failed():
    return job(
        JobState.FAILED,
        particles=[particle(0), particle(1, "Quarantined", failures=4, last_exit_code=1, last_reason="Error")],
        conditions=[
            condition("Running", "Failed", "", "False"),
            condition("Failed", "TooManyFailures", TRACEBACK),
        ],
        training=TRAINING,
        ended=START + 63,
    )


def told(*messages, warning=False):
    """Events a second apart from START on."""
    return tuple(
        Told(START + second, Event(reason="Something", message=message, warning=warning))
        for second, message in enumerate(messages)
    )


def view(of, *, events=(), now=START + 134, remaining=None):
    return View(job=of, events=events, now=now, remaining=remaining)


def text_of(shown, *, width=80, height=None):
    """What a terminal of this width shows, line by line without trailing blanks."""
    console = Console(file=io.StringIO(), width=width, height=height or 1000, legacy_windows=False)
    options = console.options.update(width=width, height=height)
    lines = Segment.split_lines(console.render(shown, options))  # nothing cropped: what is too tall shows
    return ["".join(segment.text for segment in line).rstrip() for line in lines]
