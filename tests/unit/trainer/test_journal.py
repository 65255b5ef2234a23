"""metrics.jsonl: strict JSON, and a disk that is full for a while."""

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest

from support.processes import eventually
from swarm_trainer.synchronizer.journal import Journal


def lines(path: Path) -> list[dict[str, Any]]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_numbers_that_are_not_finite_are_null(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.note("metrics", values={"loss": math.nan, "accuracy": 0.5}, more=[math.inf, 1], best=-math.inf)
    journal.close()
    (line,) = lines(tmp_path / "metrics.jsonl")
    assert line["values"] == {"loss": None, "accuracy": 0.5}
    assert (line["more"], line["best"]) == ([None, 1], None)


def test_a_full_disk_is_warned_of_once_and_nothing_is_missing_when_there_is_room_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    journal = Journal(tmp_path)
    for number in range(3):
        journal.note("round", round=number)
    eventually(lambda: "No space left on device" in caplog.text, "a warning")
    journal.note("round", round=3)
    path.unlink()
    journal.note("round", round=4)
    eventually(lambda: "is written again" in caplog.text, "it is written")
    journal.close()
    assert [line["round"] for line in lines(path)] == [0, 1, 2, 3, 4]
    assert sum(record.levelno == logging.WARNING for record in caplog.records) == 1


def test_a_disk_that_stays_full_does_not_hold_up_the_end(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    journal = Journal(tmp_path)
    journal.note("round", round=1)
    journal.close()
