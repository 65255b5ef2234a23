"""A particle's two connections to one synchronizer: the control channel, and the link behind it."""

import asyncio
import contextlib
import logging
import os
import socket
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Final

import torch

from swarm_trainer.errors import LinkError
from swarm_trainer.links import open_link
from swarm_trainer.links.base import PARTICLE_RANK, Link
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.vectors import Tensors
from swarm_trainer.wire.auth import Purpose, introduce
from swarm_trainer.wire.channel import Channel
from swarm_trainer.wire.messages import (
    FromParticleMessage,
    FromSynchronizer,
    FromSynchronizerMessage,
    Heartbeat,
    Progress,
)
from swarm_trainer.wire.transfer import recv_tensors, send_tensors

log = logging.getLogger("swarm.particle")

_CONNECT_SECONDS: Final = 5.0
_SILENCE_SECONDS: Final = 10.0

_dialed: Final = weakref.WeakSet[socket.socket]()


def _close_inherited() -> None:
    """A worker that the script forks and that outlives it must not keep its connections open."""
    for sock in _dialed:
        sock.close()


os.register_at_fork(after_in_child=_close_inherited)


class Connection:
    """Used from one event loop; after its first error it is over."""

    def __init__(self, channel: Channel, link: Link, epoch: int) -> None:
        self.epoch = epoch
        """Of the synchronizer: its incarnation."""
        self._channel = channel
        self._link = link
        self._saying = asyncio.Lock()
        self._busy = 0
        self._heard = asyncio.get_running_loop().time()

    async def hear(self) -> FromSynchronizerMessage:
        """The synchronizer's next message.

        Raises:
            LinkError: It is gone.
        """
        message = (await self._channel.recv(FromSynchronizer)).root
        self._heard = asyncio.get_running_loop().time()
        return message

    async def take(self, names: tuple[str, ...], room_for: Callable[[str], torch.Tensor]) -> Tensors:
        """Receive the tensors that it just announced.

        Raises:
            LinkError: It is gone, or a tensor does not fit.
        """
        with self.occupied():
            return await recv_tensors(self._link, names, room_for)

    async def say(self, message: FromParticleMessage, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """Send a message and the tensors that it announces, one message at a time.

        Raises:
            LinkError: It is gone.
        """
        try:
            if not tensors:
                await self._channel.send(message)
                return
            with self.occupied():
                async with self._saying:
                    await self._channel.send(message)
                    await send_tensors(self._link, tensors)
        except LinkError:
            self._channel.close()
            raise

    @contextlib.contextmanager
    def occupied(self) -> Iterator[None]:
        """Within the block one side or the other does not listen to the channel, so its silence means nothing.

        A transfer whose bytes do not move ends by itself.
        """
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._heard = asyncio.get_running_loop().time()

    async def beat(self, seconds: Callable[[], float], progress: Callable[[], Progress]) -> None:
        """Send heartbeats until the connection ends; end it when the synchronizer is silent for too long."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(LinkError):
            while True:
                await asyncio.sleep(seconds())
                silent = loop.time() - self._heard
                if not self._busy and silent > max(_SILENCE_SECONDS, 3 * seconds()):
                    log.warning("the synchronizer has been silent for %.0f s; reconnecting", silent)
                    break
                await self._channel.send(Heartbeat(progress=progress()))
        self._channel.close()

    def close(self) -> None:
        """Cut both."""
        self._link.close()
        self._channel.close()


async def connect(surroundings: Surroundings, *, least_epoch: int) -> Connection:
    """Reach the synchronizer and prove who this is.

    Args:
        surroundings: Where it is, and this particle's identity.
        least_epoch: Of the newest synchronizer that was met; an older one is no longer the swarm's.

    Raises:
        RefusedError: It will never have this particle.
        LinkError: It is not there, not the right one, or broke off.
    """
    identity, secret = surroundings.identity, surroundings.secret
    host, port = surroundings.synchronizer()
    async with asyncio.timeout(_CONNECT_SECONDS):
        channel = Channel(await _dial(host, port))
        try:
            terms = await introduce(channel, Purpose.CONTROL, identity, secret, least_epoch=least_epoch)
            second = Channel(await _dial(host, port))
            try:
                await introduce(second, Purpose.LINK, identity, secret, least_epoch=terms.epoch)
            except BaseException:
                second.close()
                raise
            link = await open_link(terms.link, second.release(), PARTICLE_RANK)
        except BaseException:
            channel.close()
            raise
    return Connection(channel, link, terms.epoch)


async def _dial(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    error: OSError = ConnectionError(f"{host} has no address")
    for family, kind, protocol, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        _dialed.add(sock)
        sock.setblocking(False)
        try:
            await loop.sock_connect(sock, address)
        except OSError as failed:
            sock.close()
            error = failed
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise error
