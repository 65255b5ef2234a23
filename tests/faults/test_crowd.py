"""So many particles at once that whatever each of them costs is seen."""

from pathlib import Path

import pytest

from support.crowd_watch import watch
from swarm_api.job import Sync

pytestmark = pytest.mark.faults

PARTICLES, ELEMENTS = 64, 1 << 16
BY_THEMSELVES = 30_000_000
"""Bytes that connections and what is loaded late take, whatever the model."""


def test_a_crowd_takes_no_thread_each_loses_nobody_and_little_more_memory_than_its_pushes(tmp_path: Path) -> None:
    # A machine that also runs other tests may well let a process wait for a second.
    seen = watch(tmp_path, PARTICLES, ELEMENTS, seconds=1, rounds=10, sync=Sync(grace_milliseconds=20_000))
    assert (seen.incomplete, seen.lost) == (0, 0)
    assert seen.rounds >= 20
    assert len(seen.swarm_seconds) == seen.rounds * PARTICLES
    assert seen.threads <= seen.threads_before + 3, "merge, journal and one that reads the settings"
    assert seen.memory <= 4 * ELEMENTS * (3 + PARTICLES) + BY_THEMSELVES
