"""A particle that waits to be let in says what is missing, in a log that nobody configured."""

import dataclasses
import logging
import socket

import pytest

from support.processes import eventually
from swarm_trainer import waiting
from unit.trainer.in_process import SECONDS, World


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(waiting, "_FIRST_SECONDS", 0.3)
    monkeypatch.setattr(waiting, "_AGAIN_SECONDS", 0.3)
    caplog.set_level(logging.INFO, "swarm.particle")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_who_finds_no_synchronizer_is_told_again_and_again_where_it_looked_and_what_to_check(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    world.address_file.write_text(f'{{"address": "127.0.0.1:{port}"}}')
    attaching = world.particle(0).attaching()
    eventually(lambda: len(warnings(caplog)) >= 2, "warned twice")
    for part in (f"no synchronizer at 127.0.0.1:{port} for ", "Connect call failed", "NetworkPolicy"):
        assert part in warnings(caplog)[0]
    world.synchronizer(replicas=1)
    attaching.result(SECONDS)
    caplog.clear()
    with pytest.raises(AssertionError):
        eventually(lambda: warnings(caplog), "warned although it is welcome", seconds=1)


def test_who_does_not_know_an_address_is_told_the_file_that_should_have_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.particle(0).attaching()
    told = eventually(lambda: warnings(caplog), "warned")[0]
    assert told.startswith(f"no synchronizer at {world.address_file} for ")
    assert "no synchronizer's address in" in told


def test_who_has_another_secret_is_told_so(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.synchronizer(replicas=1)
    right = world.surroundings
    monkeypatch.setattr(world, "surroundings", lambda *who: dataclasses.replace(right(*who), secret=b"another"))
    world.particle(0).attaching()
    assert "does not hold the job's secret" in eventually(lambda: warnings(caplog), "warned")[0]


def test_who_waits_for_the_other_particles_is_not_warned(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.synchronizer(replicas=2)
    attaching = [world.particle(0).attaching()]
    eventually(lambda: "once the swarm is founded" in caplog.text, "told")
    attaching.append(world.particle(1).attaching())
    for each in attaching:
        each.result(SECONDS)
    assert warnings(caplog) == []
