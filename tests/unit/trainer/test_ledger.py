"""What the synchronizer remembers of each particle, and the sums over them."""

import json
import math

from swarm_api.report import ParticleReport, Presence
from swarm_trainer.algorithms.base import Fitness
from swarm_trainer.synchronizer.ledger import Answer, Ledger
from swarm_trainer.wire.auth import Identity
from swarm_trainer.wire.messages import Progress, Reply, ReplyStatus


def identity(index: int = 0, incarnation: int = 1) -> Identity:
    return Identity(job_uid="j", index=index, incarnation=incarnation, instance_uid=f"u{index}.{incarnation}")


def at(samples: int, epoch: int = 0, fraction: float = 0.0) -> Progress:
    return Progress(step=samples // 10, samples=samples, epoch=epoch, fraction=fraction)


def reported(ledger: Ledger, index: int = 0) -> ParticleReport:
    (found,) = (report for report in ledger.reports({}) if report.index == index)
    return found


def test_a_replacement_goes_on_from_the_last_committed_push_and_counts_its_own_contributions() -> None:
    ledger = Ledger()
    ledger.attach(identity(), None)
    ledger.commit(0, 1, at(100), Fitness(2.0))
    ledger[0].heard = at(150)  # Trained and never merged: lost with the particle.
    entry = ledger.attach(identity(incarnation=2), None)
    assert entry.progress == entry.heard == at(100)
    assert (reported(ledger).contributions, reported(ledger).incarnation) == (0, 2)
    assert reported(ledger).first_contribution_time is None
    assert ledger.samples == 100


def test_one_that_reconnects_keeps_its_record_and_what_it_trained_meanwhile_is_not_merged_yet() -> None:
    ledger = Ledger()
    ledger.attach(identity(), None)
    ledger.commit(0, 1, at(100), Fitness(2.0))
    ledger[0].presence = Presence.DETACHED
    entry = ledger.attach(identity(), at(180))
    assert (entry.presence, entry.contributions, entry.heard) == (Presence.ATTACHED, 1, at(180))
    assert ledger.samples == 100


def test_a_new_ledger_believes_those_who_return() -> None:
    ledger = Ledger()
    ledger.attach(identity(0), at(100))
    ledger.attach(identity(1), at(80))
    assert ledger.samples == 180


def test_a_newcomer_enters_where_the_furthest_that_is_there_is() -> None:
    ledger = Ledger()
    assert ledger.swarm_progress() == Progress()
    for index, heard in enumerate([at(10, 2, 0.5), at(20, 1, 0.4), at(30, 3, 0.9)]):
        ledger.attach(identity(index), None)
        ledger[index].heard = heard
    ledger[2].presence = Presence.DETACHED
    assert ledger.swarm_progress() == Progress(epoch=2, fraction=0.5)
    ledger[0].presence = ledger[1].presence = Presence.DETACHED
    assert ledger.swarm_progress() == Progress(epoch=3, fraction=0.9)


def test_the_swarms_fraction_is_the_mean_of_all_replicas() -> None:
    ledger = Ledger()
    ledger.attach(identity(0), None)
    ledger.attach(identity(1), None)
    ledger[0].heard = at(0, fraction=0.5)
    ledger[1].presence = Presence.FINISHED
    assert ledger.fraction(4) == (0.5 + 1.0) / 4
    assert ledger.fraction(4, finished=(1, 2, 7)) == (0.5 + 1.0 + 1.0) / 4
    assert ledger.finished() == {1}


def test_a_loss_that_is_no_number_is_not_reported() -> None:
    ledger = Ledger()
    ledger.attach(identity(), None)
    ledger.commit(0, 1, at(10), Fitness(math.nan, math.inf))
    assert (reported(ledger).loss, reported(ledger).loss_standard_error) == (None, None)
    assert '"NaN"' not in reported(ledger).model_dump_json()


def answer(sequence: int, status: ReplyStatus = ReplyStatus.MERGED) -> Answer:
    return Answer(Reply(sequence=sequence, status=status, round=1, leader=0, replicas=2), {})


def test_what_is_dumped_is_known_again_and_says_which_push_was_merged_last() -> None:
    ledger = Ledger()
    for index in range(2):
        ledger.attach(identity(index), None)
        ledger.commit(index, 3, at(100), Fitness(2.0))
        ledger[index].answered(answer(5))
    ledger[0].answered(answer(6, ReplyStatus.HELD))
    ledger[1].presence = Presence.FINISHED
    again = Ledger()
    again.load(json.loads(json.dumps(ledger.dump())))
    assert [again[index].merged for index in range(2)] == [5, 5]
    assert again[0].answer is None
    assert (again.samples, again.finished()) == (200, {1})
    assert (reported(again, 0).presence, reported(again, 0).contributions) == (Presence.DETACHED, 1)
    assert again.attach(identity(0), at(150)).merged == 5
    assert again.attach(identity(0, incarnation=2), None).merged == 0, "a new incarnation counts from 1"
