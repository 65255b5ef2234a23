"""Mutual authentication of one connection, before anything else is read from it.

Both sides prove that they hold the job's link secret, over both nonces and the whole identity, so that neither a
recorded nor a reflected proof is worth anything. The secret itself never travels.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict

from swarm_api.job import Link
from swarm_api.report import PROTOCOL_VERSION
from swarm_trainer.errors import LinkError, RefusedError
from swarm_trainer.wire.channel import MESSAGE_LIMIT, Channel


class Purpose(StrEnum):
    """What the connection is for."""

    CONTROL = "control"
    LINK = "link"


class Identity(BaseModel):
    """Who a particle is, on every one of its connections."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    job_uid: str
    index: int
    incarnation: int
    instance_uid: str


class Hello(BaseModel):
    """First words of a particle."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    protocol: int = PROTOCOL_VERSION
    purpose: Purpose
    identity: Identity
    nonce: str


class Challenge(BaseModel):
    """The synchronizer's proof, and its own nonce."""

    nonce: str
    epoch: int
    proof: str


class Proof(BaseModel):
    """The particle's."""

    proof: str


class Verdict(BaseModel):
    """The end of the handshake."""

    verdict: Literal["accepted", "refused"]
    link: Link = Link.SWARM
    """How tensors will travel: told by the synchronizer, as all settings are."""
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a particle has learned of the synchronizer that let it in."""

    link: Link
    epoch: int
    """The synchronizer's incarnation."""


def new_nonce() -> str:
    """256 random bits, hexadecimal."""
    return secrets.token_hex(32)


def _prove(secret: bytes, side: str, hello: Hello, nonce: str, epoch: int) -> str:
    transcript = f"{side}\n{hello.model_dump_json()}\n{nonce}\n{epoch}".encode()
    return hmac.new(secret, transcript, hashlib.sha256).hexdigest()


async def introduce(
    channel: Channel, purpose: Purpose, identity: Identity, secret: bytes, *, least_epoch: int = 0
) -> Terms:
    """A particle's side.

    Raises:
        RefusedError: The synchronizer says that it will never have this particle.
        LinkError: The connection broke, or the other side does not hold the secret or is of an epoch before
            `least_epoch`: a synchronizer that was replaced and does not know it.
    """
    hello = Hello(purpose=purpose, identity=identity, nonce=new_nonce())
    await channel.send(hello)
    challenge = await channel.recv(Challenge)
    if not hmac.compare_digest(challenge.proof, _prove(secret, "server", hello, challenge.nonce, challenge.epoch)):
        msg = "the synchronizer at this address does not hold the job's secret"
        raise LinkError(msg)
    if challenge.epoch < least_epoch:
        msg = f"synchronizer {challenge.epoch} answers here, but it was replaced by {least_epoch}"
        raise LinkError(msg)
    await channel.send(Proof(proof=_prove(secret, "particle", hello, challenge.nonce, challenge.epoch)))
    verdict = await channel.recv(Verdict)
    if verdict.verdict == "refused":
        raise RefusedError(verdict.reason, verdict.message)
    channel.limit = MESSAGE_LIMIT
    return Terms(verdict.link, challenge.epoch)


async def examine(channel: Channel, secret: bytes, epoch: int) -> Hello:
    """A synchronizer's side; the caller still has to `accept` or `refuse`.

    Raises:
        LinkError: The connection broke, or the other side does not hold the secret.
    """
    hello = await channel.recv(Hello)
    nonce = new_nonce()
    await channel.send(Challenge(nonce=nonce, epoch=epoch, proof=_prove(secret, "server", hello, nonce, epoch)))
    proof = await channel.recv(Proof)
    if not hmac.compare_digest(proof.proof, _prove(secret, "particle", hello, nonce, epoch)):
        msg = "a connection without the job's secret"
        raise LinkError(msg)
    if hello.protocol != PROTOCOL_VERSION:
        msg = f"protocol {hello.protocol}, but the synchronizer speaks {PROTOCOL_VERSION}: use one version of the image"
        await refuse(channel, "ProtocolVersion", msg)
        raise LinkError(msg)
    return hello


async def accept(channel: Channel, link: Link) -> None:
    """Let the particle in."""
    channel.limit = MESSAGE_LIMIT
    await channel.send(Verdict(verdict="accepted", link=link))


async def refuse(channel: Channel, reason: str, message: str) -> None:
    """Tell the particle why it cannot come in; trying again will not help it."""
    await channel.send(Verdict(verdict="refused", reason=reason, message=message))
