"""Who gives a newcomer its optimizer and registered state, over real sockets in one process."""

from concurrent.futures import Future, wait

import pytest

from support.processes import some_settings
from swarm_api.job import Join, OptimizerState, Sync
from swarm_api.report import Presence
from swarm_trainer.connection import Connection
from swarm_trainer.errors import LinkError
from swarm_trainer.vectors import Tensors, room
from swarm_trainer.wire import messages as say
from unit.trainer.in_process import SECONDS, Particle, Synchronizer, World

Answer = Future[tuple[say.Donation, Tensors] | None]


def meanwhile(answer: Answer, *trains: Particle) -> tuple[say.Donation, Tensors]:
    """The answer, for which these particles go on from step to step."""
    while not answer.done():
        for particle in trains:
            particle.session.at_step()
        wait({answer}, timeout=0.01)
    found = answer.result()
    assert found is not None
    return found


def a_newcomer(world: World, index: int) -> Particle:
    particle = world.particle(index, incarnation=2)
    welcome, _ = particle.attach()
    assert welcome.inherits
    return particle


def bare(world: World, synchronizer: Synchronizer, index: int, like: Particle) -> Connection:
    """A member that does nothing by itself."""

    async def welcomed(connection: Connection) -> None:
        welcome = await connection.hear()
        assert isinstance(welcome, say.Welcome)
        await connection.take(welcome.tensors, lambda name: room(like.schema, name))

    connection = synchronizer.run(synchronizer.bare(world.surroundings(index), like.schema))
    synchronizer.run(welcomed(connection))
    return connection


def test_the_particle_that_contributed_most_is_asked_and_its_state_arrives(world: World) -> None:
    world.synchronizer(replicas=3, sync=Sync(grace_milliseconds=50, quorum=1))
    idle, busy, gone = world.particles(3)
    gone.session.close()
    busy.push(1.0)
    newcomer = a_newcomer(world, 2)
    donation, tensors = meanwhile(newcomer.inheriting(), idle, busy)
    assert donation.donor == 1
    expected, _ = busy.training.give(1 << 20)
    assert donation.parts == expected.parts
    assert tuple(tensors) == donation.tensors


def test_one_that_waits_for_its_reply_gives_at_once(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2)
    donor, other = world.particles(2)
    newcomer = a_newcomer(world, 2)
    waiting = donor.pushing(1.0)
    donation, _ = meanwhile(newcomer.inheriting())
    assert donation.donor == 0
    other.push(1.0)
    assert waiting.result(SECONDS)[0].status is say.ReplyStatus.MERGED
    assert synchronizer.reported(0).contributions == 1


def test_newcomers_that_come_together_get_one_donation(world: World) -> None:
    world.synchronizer(replicas=11)
    (donor, *others) = world.particles(11)
    for other in others:
        other.session.close()
    given = 0
    give = donor.conversation._donate

    def count() -> tuple[say.Donation, Tensors]:
        nonlocal given
        given += 1
        return give()

    donor.conversation._donate = count
    answers = [a_newcomer(world, index).inheriting() for index in range(1, 11)]
    assert {meanwhile(answer, donor)[0].donor for answer in answers} == {0}
    assert given <= 2  # The first may have been answered before the last asked.


def test_a_donor_that_dies_while_it_is_asked_is_replaced_at_once(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2, sync=Sync(deadline_seconds=60))
    dying, donor = world.particles(2)
    newcomer = a_newcomer(world, 2)
    answer = newcomer.inheriting()
    synchronizer.until(lambda: not dying.conversation.inbox.empty, "asked")
    dying.session.close()
    assert meanwhile(answer, donor)[0].donor == 1


def test_a_donor_that_does_not_answer_is_joined_by_another_and_its_late_answer_harms_nobody(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2, sync=Sync(deadline_seconds=3))
    frozen, donor = world.particles(2)
    newcomer = a_newcomer(world, 2)
    answer = newcomer.inheriting()
    synchronizer.until(lambda: not frozen.conversation.inbox.empty, "asked")
    assert meanwhile(answer, donor)[0].donor == 1
    later = a_newcomer(world, 3).inheriting()
    assert meanwhile(later, frozen)[0].donor == 0
    frozen.session.at_step()
    answers = [particle.pushing(1.0) for particle in (frozen, donor)]
    assert [answer.result(SECONDS)[0].status for answer in answers] == [say.ReplyStatus.MERGED] * 2


def test_when_nobody_answers_within_the_deadline_the_newcomer_is_told(world: World) -> None:
    world.synchronizer(replicas=1, sync=Sync(deadline_seconds=1))
    world.particles(1)
    donation, _ = meanwhile(a_newcomer(world, 1).inheriting())
    assert (donation.parts, donation.problem) == ((), "no other particle gave its own within 1 s")


def test_who_has_finished_or_is_a_newcomer_itself_is_not_asked(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2)
    finished, gone = world.particles(2)
    gone.session.close()
    finished.session.tell(say.Goodbye(finished=True, progress=say.Progress()), timeout=SECONDS)
    synchronizer.until_presence(0, Presence.FINISHED)
    donation, _ = meanwhile(a_newcomer(world, 1).inheriting())
    assert (donation.parts, donation.problem) == ((), "no other particle could be asked")


def test_who_gives_more_than_it_may_is_cut_off(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1, sync=Sync(deadline_seconds=60))
    (donor,) = world.particles(1)
    connection = bare(world, synchronizer, 1, donor)
    donor.session.close()
    synchronizer.until_presence(0, Presence.DETACHED)

    async def overdo() -> None:
        while not isinstance(await connection.hear(), say.Donate):
            pass
        await connection.say(say.Donation(parts=(say.Part(name="the optimizer", tree="{}", nbytes=1 << 40),)))
        while True:
            await connection.hear()

    overdoing = synchronizer.start(overdo())
    asked = a_newcomer(world, 2).inheriting()
    with pytest.raises(LinkError, match="closed"):
        overdoing.result(SECONDS)
    assert meanwhile(asked)[0].parts == ()


def test_founders_and_those_that_return_begin_with_what_they_have(world: World) -> None:
    first = world.synchronizer(replicas=2)
    particles = [world.particle(index) for index in range(2)]
    welcomes = [attaching.result(SECONDS)[0] for attaching in [particle.attaching() for particle in particles]]
    assert [welcome.inherits for welcome in welcomes] == [False, False]
    first.stop()


def test_a_newcomer_that_meets_a_restarted_synchronizer_inherits_too(world: World) -> None:
    first = world.synchronizer(replicas=2)
    old, gone = world.particles(2)
    gone.session.close()
    first.stop()
    first.until(lambda: not old.session.attached, "detached")
    newcomer = world.particle(1, incarnation=2)
    attaching = newcomer.attaching()
    second = world.synchronizer(replicas=2)

    def step() -> bool:
        old.session.at_step()
        return attaching.done()

    second.until(step, "founded again")
    assert attaching.result()[0].inherits
    assert meanwhile(newcomer.inheriting(), old)[0].donor == 0


def test_fresh_means_that_a_newcomer_does_not_ask_and_holds_from_now_on(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1)
    world.particles(1)

    async def change() -> None:
        synchronizer.hub.apply(some_settings(join=Join(optimizer_state=OptimizerState.FRESH)))

    assert world.particle(1).attach()[0].inherits
    synchronizer.run(change())
    assert not world.particle(2).attach()[0].inherits
