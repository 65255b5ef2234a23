"""One attached particle as the synchronizer holds it: its two connections, and what is known of it."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from pydantic import BaseModel

from swarm_trainer.errors import LinkError
from swarm_trainer.links.base import Link
from swarm_trainer.wire.auth import Identity
from swarm_trainer.wire.channel import Channel
from swarm_trainer.wire.messages import Alive, Attach, Donation, FromParticle, Push
from swarm_trainer.wire.transfer import recv_tensors, send_tensors

_REASSURE_SECONDS = 2.0


class Peer:
    """Used from the event loop only."""

    def __init__(self, identity: Identity, channel: Channel, link: Link) -> None:
        self.identity = identity
        self._channel = channel
        self._link = link
        self._saying = asyncio.Lock()
        self._rooms: dict[str, torch.Tensor] = {}
        self._busy = 0
        self._attending = False
        self._heard = time.monotonic()
        self.attach: Attach | None = None
        self.admitted = False
        """Welcomed: it counts as a member."""
        self.state: asyncio.Future[dict[str, torch.Tensor]] | None = None
        """Its weights, when they were asked for."""
        self.donation: asyncio.Future[tuple[Donation, dict[str, torch.Tensor]]] | None = None
        """Its optimizer and registered state, when they were asked for."""
        self.push: Push | None = None
        """The push that waits for an answer; its tensors are in `staged`."""
        self.staged: dict[str, torch.Tensor] = {}

    @property
    def index(self) -> int:
        """The particle's."""
        return self.identity.index

    @property
    def transferring(self) -> bool:
        """Whether tensors are on their way, in either direction; a link on which nothing moves ends by itself."""
        return self._busy > 0

    @property
    def moved_at(self) -> float:
        """When a byte of any tensor last moved, monotonic."""
        return self._link.moved_at

    @property
    def silent_seconds(self) -> float:
        """Since anything was heard of it; while we do not listen, or a transfer is under way, it is not silent."""
        return 0.0 if self._attending or self.transferring else time.monotonic() - self._heard

    @contextlib.contextmanager
    def attending(self) -> Iterator[None]:
        """Within the block we do what its last message asks for, and its next ones wait unread."""
        self._attending = True
        try:
            yield
        finally:
            self._attending = False
            self._heard = time.monotonic()

    async def reassure(self) -> None:
        """Tell it that we live while its heartbeats wait, until it is gone: who hears nothing leaves."""
        with contextlib.suppress(LinkError):
            while True:
                await asyncio.sleep(_REASSURE_SECONDS)
                if self._attending:
                    await self._channel.send(Alive())

    async def hear(self) -> BaseModel:
        """Its next message.

        Raises:
            LinkError: It is gone.
        """
        message = (await self._channel.recv(FromParticle)).root
        self._heard = time.monotonic()
        return message

    async def take(
        self,
        names: tuple[str, ...],
        wanted: Collection[str],
        empty: Callable[[str], torch.Tensor],
        *,
        keep: bool,
    ) -> dict[str, torch.Tensor]:
        """Receive the tensors it just announced.

        Args:
            names: As announced.
            wanted: What they must be; so nobody can make us take memory for more.
            empty: Memory for one of them.
            keep: Into fresh memory, else where its last ones were.

        Raises:
            LinkError: It is gone, or brings something else.
        """
        if sorted(names) != sorted(wanted):
            msg = f"it announced the vectors {', '.join(names)[:200]}; {', '.join(wanted)} are wanted"
            raise LinkError(msg)

        def room_for(name: str) -> torch.Tensor:
            if keep:
                return empty(name)
            if name not in self._rooms:
                self._rooms[name] = empty(name)
            return self._rooms[name]

        self._busy += 1
        try:
            return await recv_tensors(self._link, names, room_for)
        finally:
            self._busy -= 1

    async def say(self, message: BaseModel, tensors: Mapping[str, torch.Tensor] | None = None) -> None:
        """Send a message and the tensors it announces, one message at a time.

        Raises:
            LinkError: It is gone.
        """
        if not tensors:
            await self._channel.send(message)
            return
        async with self._saying:
            await self._channel.send(message)
            self._busy += 1
            try:
                await send_tensors(self._link, tensors)
            finally:
                self._busy -= 1

    def close(self) -> None:
        """Cut both connections."""
        self._link.close()
        self._channel.close()
        for asked in (self.state, self.donation):
            if asked is not None and not asked.done():
                asked.cancel()
