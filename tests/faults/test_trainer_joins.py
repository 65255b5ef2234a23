"""A replacement gets more than weights: it trains on where the swarm's optimizers and schedules are."""

import signal
from pathlib import Path
from typing import Any

import pytest

from support.processes import Processes, eventually, swarm_of
from support.scripts import training
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Join, Link, OptimizerState, Sync
from swarm_api.report import Presence

pytestmark = pytest.mark.faults

PERIOD, STEPS = 10, 200
LOCAL_SGD = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=PERIOD)

ADAM_AND_COSINE = f"""
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, {STEPS})


def where():
    steps = [float(state["step"]) for state in optimizer.state.values()] or [0.0]
    say(at=time.monotonic(), position=scheduler.last_epoch, lr=optimizer.param_groups[0]["lr"], adam=min(steps))
"""
SCHEDULE = """
scheduler.step()
where()
"""


def script(setup: str = "", **more: Any) -> str:
    options = {"registered": "dict(scheduler=scheduler)", "pause": 0.02} | more
    return training(setup=ADAM_AND_COSINE + setup, attached="where()", after_step=SCHEDULE, **options)


def places(swarm: Processes, name: str) -> list[dict[str, float]]:
    """Where this process said its schedule was: right after it attached, and after every step."""
    return [line for line in swarm.said(name) if "position" in line]


def until_position(swarm: Processes, name: str, position: int) -> None:
    eventually(lambda: any(line["position"] >= position for line in places(swarm, name)), f"{name} at {position}")


def ends_well(swarm: Processes, synchronizer: Any, particles: list[Any], epochs: int = 1) -> None:
    for epoch in range(epochs):
        swarm.touch(f"end-{epoch}")
    assert swarm.ended(synchronizer) == 0
    assert [particle.wait() for particle in particles] == [0] * len(particles)


@pytest.mark.parametrize("link", Link)
def test_a_particle_lost_at_60_percent_of_its_schedule_comes_back_at_60_percent(tmp_path: Path, link: Link) -> None:
    with swarm_of(tmp_path, script(epochs=3), replicas=3, algorithm=LOCAL_SGD, sync=Sync(link=link)) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        survivors = ["particle-0-1", "particle-2-1"]
        swarm.touch("end-0")
        until_position(swarm, "particle-1-1", STEPS * 6 // 10)
        particles[1].signal(signal.SIGKILL)
        swarm.until_presence(1, Presence.DETACHED)
        particles[1] = swarm.particle(1, incarnation=2)
        swarm.trains_on("particle-1-2", *survivors, steps=2 * PERIOD)
        ends_well(swarm, synchronizer, particles, epochs=3)

        first, *later = places(swarm, "particle-1-2")
        others = [line for name in survivors for line in places(swarm, name)]
        furthest = max(line["position"] for line in others if line["at"] <= first["at"])
        assert furthest - PERIOD <= first["position"] <= furthest
        assert first["position"] >= STEPS * 6 // 10
        rates = {line["position"]: line["lr"] for line in others}
        assert all(line["lr"] == pytest.approx(rates[line["position"]]) for line in (first, *later[:PERIOD]))
        assert first["adam"] >= first["position"]
        assert [line["adam"] for line in later] == [first["adam"] + step for step in range(1, len(later) + 1)]
        last = [swarm.said(name)[-2]["epoch"] for name in ("particle-1-2", *survivors)]
        assert last == [2, 2, 2]
        assert "begin anew" not in swarm.log("particle-1-2")


@pytest.mark.parametrize(
    ("deadline", "killed"), [(60, True), (3, False)], ids=["is killed", "stays frozen for a third of the deadline"]
)
def test_when_a_donor_gives_nothing_another_one_does(tmp_path: Path, deadline: int, killed: bool) -> None:
    # Frozen, but not silent for long enough to be passed over.
    sync = Sync(heartbeat_seconds=60, deadline_seconds=deadline)
    with swarm_of(tmp_path, script(), replicas=3, algorithm=LOCAL_SGD, sync=sync) as swarm:
        synchronizer = swarm.synchronizer()
        particles = [swarm.particle(index) for index in range(3)]
        until_position(swarm, "particle-0-1", 3 * PERIOD)
        particles[1].signal(signal.SIGKILL)
        swarm.until_presence(1, Presence.DETACHED)
        asked = [particle for particle in (0, 2) if swarm.reported(particle)]
        for index in asked:
            particles[index].signal(signal.SIGSTOP)
        particles[1] = swarm.particle(1, incarnation=2)
        log = eventually(lambda: (said := swarm.log("synchronizer-1")) and "is asked for" in said and said, "asked")
        frozen = next(index for index in asked if f"particle {index} is asked for" in log)
        particles[2 - frozen].signal(signal.SIGCONT)
        if killed:
            particles[frozen].signal(signal.SIGKILL)
        first = eventually(lambda: places(swarm, "particle-1-2"), "it inherits")[0]
        assert first["adam"] >= first["position"] >= 2 * PERIOD
        assert [line["donor"] for line in swarm.history("inherited")] == [2 - frozen]
        if killed:
            particles[frozen] = swarm.particle(frozen, incarnation=2)
        else:
            particles[frozen].signal(signal.SIGCONT)
        swarm.trains_on("particle-1-2", f"particle-{2 - frozen}-1")
        ends_well(swarm, synchronizer, particles)


SECOND_LIFE = 'second_life = os.environ["SWARM_INCARNATION"] == "2"\n'
TWO_GROUPS = (
    SECOND_LIFE
    + """
if second_life:
    optimizer = torch.optim.AdamW([{"params": [p]} for p in model.parameters()], lr=0.1)
"""
)
MORE_STATE = (
    "dict(ema=torch.optim.swa_utils.AveragedModel(model)) | (dict(scheduler=scheduler) if not second_life else {})"
)


@pytest.mark.parametrize(
    ("options", "changes", "warnings", "adam"),
    [
        ({"setup": TWO_GROUPS}, {}, ["the optimizer begins anew: the donor's has shape"], False),
        (
            {"setup": SECOND_LIFE, "registered": MORE_STATE},
            {},
            ["particle 0 gave state['scheduler'], and this script has no such thing"],
            True,
        ),
        ({}, {"replicas": 1}, ["begin anew: no other particle could be asked"], False),
        ({}, {"join": Join(optimizer_state=OptimizerState.FRESH)}, [], False),
        (
            {"registered": "None"},
            {},
            ["a learning-rate scheduler drives the optimizer, but it is not registered"],
            True,
        ),
    ],
    ids=["an optimizer of another shape", "state without match", "nobody else", "Fresh", "nothing registered"],
)
def test_what_cannot_be_taken_over_begins_anew_with_a_warning(
    tmp_path: Path, options: dict[str, Any], changes: dict[str, Any], warnings: list[str], adam: bool
) -> None:
    settings = {"replicas": 2, "algorithm": LOCAL_SGD, "sync": Sync()} | changes
    with swarm_of(tmp_path, script(**options), **settings) as swarm:
        synchronizer = swarm.synchronizer()
        last = settings["replicas"] - 1
        particles = [swarm.particle(index) for index in range(last + 1)]
        until_position(swarm, f"particle-{last}-1", 2 * PERIOD)
        particles[last].signal(signal.SIGKILL)
        swarm.until_presence(last, Presence.DETACHED)
        particles[last] = swarm.particle(last, incarnation=2)
        name = f"particle-{last}-2"
        swarm.trains_on(name)
        ends_well(swarm, synchronizer, particles)
        assert bool(places(swarm, name)[0]["adam"]) is adam
        told = swarm.log(name)
        assert all(warning in told for warning in warnings)
        assert ("anew" in told or "no such thing" in told) is bool(warnings)
