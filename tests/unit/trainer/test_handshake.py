"""Who gets in: both sides prove that they hold the secret, and nothing recorded or reflected helps."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from swarm_api.job import Link as LinkKind
from swarm_trainer.errors import LinkError, RefusedError
from swarm_trainer.wire import auth
from swarm_trainer.wire.auth import Hello, Identity, Proof, Purpose, Terms, accept, examine, introduce
from swarm_trainer.wire.channel import HANDSHAKE_LIMIT, MESSAGE_LIMIT, Channel

SECRET = b"the job's secret"
ME = Identity(job_uid="job", index=0, incarnation=1, instance_uid="a")

T = TypeVar("T")


def meeting(
    particle: Callable[[Channel], Awaitable[T]], synchronizer: Callable[[Channel], Awaitable[object]]
) -> tuple[T | BaseException, object]:
    """Both ends of one connection; whoever is done hangs up."""

    async def meet() -> tuple[T | BaseException, object]:
        here, there = map(Channel, socket.socketpair())

        async def until_done(side: Callable[[Channel], Awaitable[object]], channel: Channel) -> object:
            try:
                return await side(channel)
            finally:
                channel.close()

        async with asyncio.timeout(10):
            mine, theirs = await asyncio.gather(
                until_done(particle, here), until_done(synchronizer, there), return_exceptions=True
            )
        return mine, theirs  # type: ignore[return-value]

    return asyncio.run(meet())


async def lets_in(channel: Channel) -> tuple[Hello, int]:
    hello = await examine(channel, SECRET, epoch=3)
    before = channel.limit
    await accept(channel, LinkKind.GLOO)
    return hello, before


async def comes_in(channel: Channel) -> tuple[Terms, int]:
    terms = await introduce(channel, Purpose.CONTROL, ME, SECRET, least_epoch=3)
    return terms, channel.limit


def test_both_hold_the_secret_and_may_speak_at_length_afterwards() -> None:
    mine, theirs = meeting(comes_in, lets_in)
    assert mine == (Terms(LinkKind.GLOO, 3), MESSAGE_LIMIT)
    assert isinstance(theirs, tuple)
    hello, before_proof = theirs
    assert (hello.identity, hello.purpose, before_proof) == (ME, Purpose.CONTROL, HANDSHAKE_LIMIT)


def test_a_particle_does_not_speak_to_a_synchronizer_with_another_secret() -> None:
    mine, _ = meeting(comes_in, lambda channel: examine(channel, b"another", epoch=3))
    assert isinstance(mine, LinkError)
    assert "does not hold the job's secret" in str(mine)


def test_a_synchronizer_does_not_let_in_who_has_another_secret() -> None:
    async def ignores_the_proof(channel: Channel) -> None:
        hello = Hello(purpose=Purpose.CONTROL, identity=ME, nonce=auth.new_nonce())
        await channel.send(hello)
        challenge = await channel.recv(auth.Challenge)
        await channel.send(Proof(proof=auth._prove(b"another", "particle", hello, challenge.nonce, challenge.epoch)))
        await channel.recv(auth.Verdict)

    _, theirs = meeting(ignores_the_proof, lets_in)
    assert isinstance(theirs, LinkError)
    assert "without the job's secret" in str(theirs)


def test_a_recorded_handshake_is_worth_nothing() -> None:
    recorded: list[Hello | Proof] = []

    async def records(channel: Channel) -> None:
        hello = Hello(purpose=Purpose.CONTROL, identity=ME, nonce=auth.new_nonce())
        await channel.send(hello)
        challenge = await channel.recv(auth.Challenge)
        proof = Proof(proof=auth._prove(SECRET, "particle", hello, challenge.nonce, challenge.epoch))
        await channel.send(proof)
        await channel.recv(auth.Verdict)
        recorded.extend((hello, proof))

    async def replays(channel: Channel) -> None:
        await channel.send(recorded[0])
        await channel.recv(auth.Challenge)
        await channel.send(recorded[1])
        await channel.recv(auth.Verdict)

    assert not isinstance(meeting(records, lets_in)[1], BaseException)
    assert isinstance(meeting(replays, lets_in)[1], LinkError)


def test_a_reflected_proof_is_worth_nothing() -> None:
    async def reflects(channel: Channel) -> None:
        await channel.send(Hello(purpose=Purpose.CONTROL, identity=ME, nonce=auth.new_nonce()))
        challenge = await channel.recv(auth.Challenge)
        await channel.send(Proof(proof=challenge.proof))
        await channel.recv(auth.Verdict)

    assert isinstance(meeting(reflects, lets_in)[1], LinkError)


@pytest.mark.parametrize("change", [{"index": 1}, {"incarnation": 2}, {"instance_uid": "b"}, {"job_uid": "other"}])
def test_a_proof_is_for_one_identity_only(change: dict[str, object]) -> None:
    async def claims(channel: Channel) -> None:
        hello = Hello(purpose=Purpose.CONTROL, identity=ME, nonce=auth.new_nonce())
        await channel.send(hello.model_copy(update={"identity": ME.model_copy(update=change)}))
        challenge = await channel.recv(auth.Challenge)
        await channel.send(Proof(proof=auth._prove(SECRET, "particle", hello, challenge.nonce, challenge.epoch)))
        await channel.recv(auth.Verdict)

    assert isinstance(meeting(claims, lets_in)[1], LinkError)


def test_a_particle_does_not_go_back_to_a_synchronizer_that_was_replaced() -> None:
    mine, _ = meeting(comes_in, lambda channel: examine(channel, SECRET, epoch=2))
    assert isinstance(mine, LinkError)
    assert "replaced by 3" in str(mine)


def test_another_protocol_is_refused_with_the_remedy() -> None:
    async def is_newer(channel: Channel) -> None:
        hello = Hello(protocol=99, purpose=Purpose.CONTROL, identity=ME, nonce=auth.new_nonce())
        await channel.send(hello)
        challenge = await channel.recv(auth.Challenge)
        await channel.send(Proof(proof=auth._prove(SECRET, "particle", hello, challenge.nonce, challenge.epoch)))
        verdict = await channel.recv(auth.Verdict)
        raise RefusedError(verdict.reason, verdict.message)

    mine, theirs = meeting(is_newer, lets_in)
    assert isinstance(mine, RefusedError)
    assert mine.reason == "ProtocolVersion"
    assert "use one version of the image" in str(mine)
    assert isinstance(theirs, LinkError)
