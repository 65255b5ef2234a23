"""One synchronizer and its particles, over real sockets in one process."""

import asyncio
import math
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import pytest
import torch
from torch import nn

from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Link as LinkKind
from swarm_api.job import Sync
from swarm_api.report import Presence, SwarmState
from swarm_trainer.connection import Connection
from swarm_trainer.errors import LinkError, NoFitnessError, RefusedError
from swarm_trainer.inbox import Inbox, Said
from swarm_trainer.links.base import Link
from swarm_trainer.synchronizer import door
from swarm_trainer.vectors import BUFFERS, INTEGERS, Tensors, X, room
from swarm_trainer.weights import Schema
from swarm_trainer.wire import messages as say
from unit.trainer.in_process import SECONDS, Particle, Synchronizer, World, a_model, a_push, until_attached

PSOPS = Algorithm(name=AlgorithmName.PSOPS, sync_period=1)
MERGED, HELD, REFUSED = say.ReplyStatus.MERGED, say.ReplyStatus.HELD, say.ReplyStatus.REFUSED


def all_equal(tensors: Tensors, value: float) -> bool:
    return all(bool((tensor == value).all()) for tensor in tensors.values())


def together(particles: list[Particle], *values: float | Tensors, **fields: Any) -> list[tuple[say.Reply, Tensors]]:
    """Everyone pushes, and waits for the answer."""
    pushing = [particle.pushing(value, **fields) for particle, value in zip(particles, values, strict=True)]
    return [answer.result(SECONDS) for answer in pushing]


def meanwhile(
    particle: Particle, value: float, answer: "Future[tuple[say.Reply, Tensors]]", **fields: Any
) -> tuple[say.Reply, Tensors]:
    """The particle goes on pushing until another one has its answer; its own last push may be waiting then."""
    while not answer.done():
        wait({answer, particle.pushing(value, **fields)}, return_when=FIRST_COMPLETED)
    return answer.result()


# Coming in


def test_the_lowest_index_founds_the_swarm_and_the_others_adopt_its_weights(world: World) -> None:
    synchronizer = world.synchronizer(replicas=3)
    particles = [world.particle(index) for index in (2, 1, 0)]
    welcomes = {p: attaching.result(SECONDS) for p, attaching in [(p, p.attaching()) for p in particles]}
    *others, founder = particles
    assert welcomes[founder][0].action is say.Action.KEEP
    for other in others:
        welcome, tensors = welcomes[other]
        assert (welcome.action, welcome.leader) == (say.Action.ADOPT, 0)
        assert torch.equal(tensors[X], founder.weights.gather())
    assert torch.equal(synchronizer.center()[X], founder.weights.gather())
    assert world.particle(0, incarnation=2).attach()[0].action is say.Action.ADOPT


def test_a_particle_waits_for_a_synchronizer_whose_address_is_not_told_yet(world: World) -> None:
    particle = world.particle(0)
    world.address_file.write_text('{"address": "nowhere"}')
    attaching = particle.attaching()
    with pytest.raises(TimeoutError):
        attaching.result(0.3)
    world.synchronizer(replicas=1)
    assert attaching.result(SECONDS)[0].action is say.Action.KEEP


def test_who_hears_its_first_welcome_may_ask_at_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put = Inbox.put

    def put_and_dawdle(inbox: Inbox, item: Said) -> None:
        put(inbox, item)
        time.sleep(0.2)

    monkeypatch.setattr(Inbox, "put", put_and_dawdle)
    world.synchronizer(replicas=1)
    particle = world.particle(0)
    particle.attach()
    assert particle.session.attached


def test_another_model_is_refused_naming_the_first_difference(world: World) -> None:
    world.synchronizer(replicas=1)
    world.particle(0).attach()
    stranger = world.particle(1, model=a_model(width=5))
    with pytest.raises(RefusedError, match=r"particle 1 .* its '0.weight' has shape \(5, 3\) instead of \(2, 3\)"):
        stranger.attach()


def test_a_description_that_is_none_is_refused_and_harms_nobody(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1)
    (particle,) = world.particles(1)

    stranger = synchronizer.run(synchronizer.bare(world.surroundings(1), {"entries": "many"}))
    assert isinstance(synchronizer.run(stranger.hear()), say.Stop)
    assert particle.push(1.0)[0].status is MERGED


def test_a_founder_that_does_not_answer_costs_one_deadline(world: World) -> None:
    sync = Sync(deadline_seconds=1, start_grace_seconds=0)
    synchronizer = world.synchronizer(replicas=2, sync=sync)
    particle = world.particle(1)

    frozen = synchronizer.run(synchronizer.bare(world.surroundings(0), particle.schema))
    assert isinstance(synchronizer.run(frozen.hear()), say.SendState)
    assert particle.attach()[0].action is say.Action.KEEP


# Incarnations


def test_an_older_incarnation_and_a_second_copy_of_the_same_are_fenced(world: World) -> None:
    world.synchronizer(replicas=1)
    world.particle(0, incarnation=2).attach()
    for zombie in (world.particle(0, incarnation=1), world.particle(0, incarnation=2, uid="copy")):
        with pytest.raises(RefusedError) as refusal:
            zombie.attach()
        assert refusal.value.reason == "Fenced"


def test_a_newer_incarnation_takes_over_from_one_that_lives(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1)
    old, new = world.particle(0), world.particle(0, incarnation=2)
    old.attach()
    assert old.push(3.0)[0].status is MERGED
    welcome, tensors = new.attach()
    assert welcome.action is say.Action.ADOPT
    assert all_equal(tensors, 3.0)
    with pytest.raises(RefusedError) as refusal:
        synchronizer.until(lambda: old.session.at_step(), "fenced")
    assert refusal.value.reason == "Fenced"
    assert new.push(4.0)[0].status is MERGED
    assert synchronizer.reported(0).incarnation == 2


def test_one_that_is_replaced_while_its_link_opens_does_not_put_its_replacement_out(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opening, open_now = door.open_link, threading.Event(), threading.Event()

    async def slow_at_first(kind: LinkKind, sock: socket.socket, rank: int) -> Link:
        if not opening.is_set():
            opening.set()
            await asyncio.to_thread(open_now.wait, SECONDS)
        return await real(kind, sock, rank)

    monkeypatch.setattr(door, "open_link", slow_at_first)
    synchronizer = world.synchronizer(replicas=1)
    old, new = world.particle(0).attaching(), world.particle(0, incarnation=2)
    assert opening.wait(SECONDS)
    new.attach()
    open_now.set()
    with pytest.raises(RefusedError, match="incarnation 1 was replaced by 2"):
        old.result(SECONDS)
    assert new.push(1.0)[0].status is MERGED
    assert synchronizer.reported(0).incarnation == 2


def test_a_newcomer_goes_on_where_the_swarm_and_its_own_index_are(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2)
    first, second = world.particles(2)
    first.session.position.epoch, first.session.position.fraction = 3, 0.6
    together([first, second], 1.0, 1.0, samples=80)
    synchronizer.until(lambda: synchronizer.hub.report().progress > 0, "a heartbeat")
    second.session.close()
    synchronizer.until_presence(1, Presence.DETACHED)
    welcome, _ = world.particle(1, incarnation=2).attach()
    assert welcome.progress == say.Progress(samples=80, epoch=3, fraction=0.6)


# Rounds


def test_buffers_are_averaged_integers_maximal_and_everyone_gets_them(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2)
    particles = world.particles(2)
    first, second = particles[0].constant(1.0), particles[1].constant(4.0)
    first[INTEGERS].fill_(9)
    for reply, tensors in together(particles, first, second):
        assert (reply.status, reply.round) == (MERGED, 1)
        assert all_equal({X: tensors[X], BUFFERS: tensors[BUFFERS]}, 2.5)
        assert all_equal({INTEGERS: tensors[INTEGERS]}, 9)
    together(particles, 0.0, 0.0)
    assert all_equal({INTEGERS: synchronizer.center()[INTEGERS]}, 9)


def test_a_push_that_is_not_finite_is_refused_brings_the_center_and_delays_nobody(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2)
    healthy, ill = particles = world.particles(2)
    together(particles, 2.0, 2.0)
    waiting = healthy.pushing(5.0)
    for name in (X, BUFFERS):
        broken = ill.constant(2.0)
        broken[name][-1] = math.nan
        assert ill.push(broken)[0].status is REFUSED
    assert waiting.result(SECONDS)[0].status is MERGED
    assert all_equal({name: tensor for name, tensor in ill.push(broken)[1].items() if name != INTEGERS}, 5.0)
    assert synchronizer.reported(1).refused == 3
    assert meanwhile(healthy, 1.0, ill.pushing(1.0))[0].status is MERGED


def test_below_min_replicas_pushes_are_held_and_at_it_they_merge_again(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2, min_replicas=2)
    first, second = world.particles(2)
    together([first, second], 1.0, 1.0)
    second.session.close()
    synchronizer.until_state(SwarmState.WAITING)
    assert synchronizer.hub.report().message == "1 of at least 2 particles"
    assert [first.push(value)[0].status for value in (2.0, 3.0)] == [HELD, HELD]
    assert all_equal(synchronizer.center(), 1.0)
    back = world.particle(1, incarnation=2)
    assert all_equal(back.attach()[1], 1.0)
    synchronizer.until_state(SwarmState.TRAINING)
    assert meanwhile(first, 4.0, back.pushing(4.0))[0].status is MERGED
    assert synchronizer.hub.report().round >= 2


def test_a_second_push_before_the_answer_ends_the_connection_and_nothing_else(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1, sync=Sync(grace_milliseconds=100))
    (particle,) = world.particles(1)

    async def push_and_listen(connection: Connection, tensors: Tensors) -> None:
        await connection.say(a_push(2, tensors), tensors)  # It may be cut off while it speaks.
        await connection.hear()

    async def push_twice() -> None:
        connection = await synchronizer.bare(world.surroundings(1), particle.schema)
        welcome = await connection.hear()
        assert isinstance(welcome, say.Welcome)
        await connection.take(welcome.tensors, lambda name: room(particle.schema, name))
        tensors = particle.constant(7.0)
        await connection.say(a_push(1, tensors), tensors)
        with pytest.raises(LinkError):
            await push_and_listen(connection, tensors)

    particle.push(1.0)  # Expected from now on, so the push of 1 has to wait for it.
    synchronizer.run(push_twice())
    assert particle.push(2.0)[0].status is MERGED
    assert all_equal(synchronizer.center(), 2.0)


# Readers


def big_model() -> nn.Module:
    """16 MB: more than two sockets' buffers hold."""
    return nn.Sequential(nn.Linear(2000, 2000), nn.BatchNorm1d(1))


async def read_late(connection: Connection, schema: Schema, asked: "asyncio.Future[None]") -> tuple[Any, Tensors]:
    """Hear an answer whose tensors are under way already, and read them only when asked."""
    message = await connection.hear()
    while isinstance(message, say.Alive):
        message = await connection.hear()
    await asyncio.wait_for(asked, SECONDS)
    return message, await connection.take(message.tensors, lambda name: room(schema, name))  # type: ignore[union-attr]


def test_a_center_that_is_being_sent_keeps_its_values_while_rounds_go_on(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1)
    (particle,) = world.particles(1, big_model)
    particle.push(1.0)
    reader = synchronizer.run(synchronizer.bare(world.surroundings(1), particle.schema))
    asked: asyncio.Future[None] = asyncio.Future(loop=synchronizer.loop)
    reading = synchronizer.start(read_late(reader, particle.schema, asked))
    synchronizer.until_presence(1, Presence.ATTACHED)
    for value in (2.0, 3.0, 4.0):
        assert particle.push(value)[0].status is MERGED
    synchronizer.loop.call_soon_threadsafe(asked.set_result, None)
    welcome, tensors = reading.result(SECONDS)
    assert welcome.round == 1
    assert all_equal(tensors, 1.0)


def test_a_slow_receiver_of_a_reply_gets_its_rounds_values_and_delays_no_other_round(world: World) -> None:
    synchronizer = world.synchronizer(replicas=1, sync=Sync(grace_milliseconds=50))
    (particle,) = world.particles(1, big_model)
    slow = synchronizer.run(synchronizer.bare(world.surroundings(1), particle.schema))
    asked: asyncio.Future[None] = asyncio.Future(loop=synchronizer.loop)

    async def push() -> None:
        welcome = await slow.hear()
        await slow.take(welcome.tensors, lambda name: room(particle.schema, name))  # type: ignore[union-attr]
        tensors = particle.constant(3.0)
        await slow.say(a_push(1, tensors), tensors)

    synchronizer.run(push())
    synchronizer.until(lambda: particle.push(1.0) and synchronizer.reported(1).contributions, "merged")
    reading = synchronizer.start(read_late(slow, particle.schema, asked))
    for _ in range(3):
        assert particle.push(9.0)[0].status is MERGED
    synchronizer.loop.call_soon_threadsafe(asked.set_result, None)
    reply, tensors = reading.result(SECONDS)
    assert reply.status is MERGED
    value = float(tensors[X][0])
    assert value in (2.0, 3.0)  # With the other's 1 in this round, or without it.
    assert all_equal({X: tensors[X], BUFFERS: tensors[BUFFERS]}, value)


def test_the_center_that_is_fetched_is_always_one_rounds(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2)
    particles = world.particles(2, lambda: nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(1)))
    reader = world.particle(2, model=nn.Sequential(nn.Linear(300, 300), nn.BatchNorm1d(1)))
    reader.attach()
    together(particles, 1.0, 1.0)

    def rounds() -> None:
        for value in range(2, 40):
            together(particles, float(value), float(value))

    going = particles[0]._threads.submit(rounds)
    seen: list[float] = []
    while not going.done() or not seen:
        center = reader.session.fetch_center()
        assert center is not None
        seen.append(float(center[X][0]))
        assert all_equal(center, seen[-1])
    going.result()
    assert seen == sorted(seen)
    assert synchronizer.hub.report().round == 39


# What is kept for those that may ask again


def merged_once(world: World, **changes: Any) -> tuple[Synchronizer, list[Particle], Callable[[], object]]:
    """Two particles after a round, and the weights that it left, for as long as anything holds them."""
    synchronizer = world.synchronizer(replicas=2, sync=Sync(grace_milliseconds=50), **changes)
    particles = world.particles(2)
    together(particles, 1.0, 1.0)
    return synchronizer, particles, weakref.ref(synchronizer.center()[X])


def test_the_last_answer_of_one_that_finished_holds_no_center(world: World) -> None:
    synchronizer, (particle, finished), held = merged_once(world)
    finished.session.tell(say.Goodbye(finished=True, progress=say.Progress()), timeout=SECONDS)
    synchronizer.until_presence(1, Presence.FINISHED)
    particle.push(2.0)
    synchronizer.until(lambda: held() is None, "let go")


@pytest.mark.parametrize("change", [{"given_up": (1,)}, {"replicas": 1}], ids=["given up", "scaled away"])
def test_the_last_answer_of_one_that_is_gone_is_held_until_it_is_not_wanted_back(
    world: World, change: dict[str, Any]
) -> None:
    synchronizer, (particle, gone), held = merged_once(world)
    gone.session.close()
    synchronizer.until_presence(1, Presence.DETACHED)
    particle.push(2.0)
    particle.push(3.0)
    assert held() is not None, "it may come back"
    synchronizer.change(**change)
    synchronizer.until(lambda: synchronizer.hub.report().settings_generation == 2, "new settings")
    particle.push(4.0)
    synchronizer.until(lambda: held() is None, "let go")


# Losses


def test_when_nobody_ever_reported_a_loss_the_job_fails_with_the_line_to_add(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2, algorithm=PSOPS)
    particles = world.particles(2)
    pushing = [particle.pushing(1.0, fitness=None) for particle in particles]
    for answer in pushing:
        with pytest.raises(RefusedError, match=r"particle.report\(loss=loss\)"):
            answer.result(SECONDS)
    with pytest.raises(NoFitnessError, match=r"particle.report\(loss=loss\)"):
        synchronizer.ended.result(SECONDS)
    assert synchronizer.hub.report().state is SwarmState.FAILED


def test_one_whose_loss_is_not_finite_does_not_fail_a_job_whose_others_are_away(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2, algorithm=PSOPS)
    healthy, ill = world.particles(2)
    both = [healthy.pushing(1.0), ill.pushing(5.0, fitness=math.nan)]
    assert all_equal({X: both[1].result(SECONDS)[1][X]}, 1.0)  # The attractor is the healthy one alone.
    healthy.session.close()
    synchronizer.until_presence(0, Presence.DETACHED)
    assert ill.push(5.0, fitness=math.nan)[0].status is HELD
    healthy = world.particle(0, incarnation=2)
    healthy.attach()
    assert meanwhile(ill, 5.0, healthy.pushing(2.0), fitness=math.inf)[0].status is MERGED
    assert not synchronizer.ended.done()


def test_one_whose_loss_is_not_finite_does_not_fail_a_job_before_the_others_brought_theirs(world: World) -> None:
    first = world.synchronizer(replicas=2, algorithm=PSOPS, sync=Sync(grace_milliseconds=50, quorum=1))
    healthy, ill = particles = world.particles(2)
    assert ill.push(5.0, fitness=math.nan)[0].status is HELD
    assert meanwhile(ill, 5.0, healthy.pushing(1.0), fitness=math.nan)[0].status is MERGED
    away(particles, first)
    second = world.synchronizer(replicas=2, algorithm=PSOPS, sync=Sync(grace_milliseconds=50, quorum=1))
    until_attached(*particles)
    assert ill.push(5.0, fitness=math.nan)[0].status is HELD
    assert not second.ended.done()


def test_one_without_a_finite_loss_does_not_fail_a_job_whose_others_finished_before_a_restart(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2, algorithm=PSOPS, finished=(0,))
    ill = world.particle(1)
    ill.attach()
    assert ill.push(5.0, fitness=math.nan)[0].status is HELD
    assert not synchronizer.ended.done()


def test_the_last_one_to_finish_may_have_no_finite_loss(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2, algorithm=PSOPS)
    healthy, ill = world.particles(2)
    both = [healthy.pushing(1.0), ill.pushing(5.0, fitness=math.nan)]
    assert [answer.result(SECONDS)[0].status for answer in both] == [MERGED, MERGED]
    goodbye = say.Goodbye(finished=True, progress=say.Progress())
    healthy.session.tell(goodbye, timeout=SECONDS)
    synchronizer.until_presence(0, Presence.FINISHED)
    assert ill.push(5.0, fitness=math.nan)[0].status is HELD
    ill.session.tell(goodbye, timeout=SECONDS)
    healthy.session.close()
    ill.session.close()
    synchronizer.ended.result(SECONDS)


# Another synchronizer


def away(particles: list[Particle], synchronizer: Synchronizer) -> None:
    synchronizer.stop()
    for particle in particles:
        synchronizer.until(lambda particle=particle: not particle.session.attached, "detached")


def test_the_next_synchronizer_rebuilds_the_center_and_counts_on(world: World) -> None:
    first = world.synchronizer(replicas=2)
    particles = world.particles(2)
    for value in (1.0, 2.0, 3.0):
        together(particles, value, value)
    away(particles, first)
    assert particles[0].session.fetch_center() is None
    for particle, value in zip(particles, (10.0, 20.0), strict=True):
        particle.weights.gather().fill_(value)
    second = world.synchronizer(replicas=2)
    until_attached(*particles)
    assert second.center()[X].unique().tolist() == [0.0, 15.0]  # What is between the weights stays 0.
    replies = together(particles, 4.0, 4.0)
    assert [(reply.status, reply.round) for reply, _ in replies] == [(MERGED, 4), (MERGED, 4)]


def test_who_asked_for_the_weights_may_be_gone_when_the_step_ends(world: World) -> None:
    first = world.synchronizer(replicas=1)
    (particle,) = particles = world.particles(1)
    particle.push(1.0)
    away(particles, first)
    second = world.synchronizer(replicas=1)
    second.until(lambda: not particle.conversation.inbox.empty and second.hub._swarm.peers, "asked")
    second.stop()
    world.synchronizer(replicas=1)
    until_attached(particle)
    assert particle.push(2.0)[0].round == 2


def test_one_that_finished_and_went_counts_as_there_for_the_next_synchronizer_which_does_not_wait_for_it(
    world: World,
) -> None:
    first = world.synchronizer(replicas=2, min_replicas=2)
    particle, gone = particles = world.particles(2)
    together(particles, 1.0, 1.0)
    gone.session.close()
    away([particle], first)
    second = world.synchronizer(replicas=2, min_replicas=2, finished=(1,))
    until_attached(particle)
    assert particle.push(2.0)[0].status is MERGED
    particle.session.tell(say.Goodbye(finished=True, progress=say.Progress()), timeout=SECONDS)
    particle.session.close()
    second.ended.result(SECONDS)
    assert second.hub.report().progress == 0.5 + 0.5


def test_a_goodbye_whose_answer_does_not_come_is_said_again(world: World) -> None:
    synchronizer = world.synchronizer(replicas=2)
    cable = world.cable()
    particle, other = world.particle(0, cable=cable), world.particle(1)
    for attaching in [particle.attaching(), other.attaching()]:
        attaching.result(SECONDS)
    goodbye = say.Goodbye(finished=True, progress=say.Progress())
    cable.hold()
    parting = world._threads.submit(particle.session.part, goodbye, patience=SECONDS)
    synchronizer.until_presence(0, Presence.FINISHED)
    with pytest.raises(TimeoutError):
        parting.result(0.3)
    cable.cut()
    assert parting.result(SECONDS)


@pytest.mark.parametrize("told_to_end", [False, True])
def test_whoever_parts_from_nobody_waits_as_long_as_it_has_patience(world: World, told_to_end: bool) -> None:
    synchronizer = world.synchronizer(replicas=1)
    (particle,) = particles = world.particles(1)
    away(particles, synchronizer)
    goodbye = say.Goodbye(finished=True, progress=say.Progress())
    patience = SECONDS if told_to_end else 0.3
    began = time.monotonic()
    assert not particle.session.part(goodbye, patience=patience, until=lambda: told_to_end)
    assert told_to_end or time.monotonic() - began >= patience
    assert time.monotonic() - began < SECONDS / 2


def test_one_that_finished_is_finished_for_the_next_synchronizer_too(world: World) -> None:
    first = world.synchronizer(replicas=2)
    particles = world.particles(2)
    together(particles, 1.0, 1.0)
    goodbye = say.Goodbye(finished=True, progress=say.Progress(samples=8))
    particles[1].session.tell(goodbye, timeout=SECONDS)
    first.until_presence(1, Presence.FINISHED)
    away(particles, first)
    second = world.synchronizer(replicas=2)
    until_attached(*particles)
    second.until_presence(1, Presence.FINISHED)
    assert particles[0].push(2.0)[0].status is MERGED
    particles[0].session.tell(goodbye, timeout=SECONDS)
    for particle in particles:
        particle.session.close()
    second.ended.result(SECONDS)
