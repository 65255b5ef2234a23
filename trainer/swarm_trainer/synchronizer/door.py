"""Where particles come in: connections are accepted, proved, paired and fenced before they become a peer."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping

from swarm_api.job import Link as LinkKind
from swarm_trainer.errors import LinkError
from swarm_trainer.links import open_link
from swarm_trainer.links.base import SYNCHRONIZER_RANK, Link
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.wire.auth import Identity, Purpose, accept, examine, refuse
from swarm_trainer.wire.channel import Channel

log = logging.getLogger("swarm.synchronizer")

_HANDSHAKE_SECONDS = 2.0
_PAIRING_SECONDS = 10.0
_RECOVERY_SECONDS = 1.0
_BACKLOG = 256


class Door:
    """Accepts connections on one socket and hands complete peers to `welcome`."""

    def __init__(
        self,
        *,
        job_uid: str,
        secret: bytes,
        epoch: int,
        link: LinkKind,
        welcome: Callable[[Peer], Awaitable[None]],
        known: Mapping[int, Identity],
    ) -> None:
        """`known`: by index, the newest incarnation that was let in before this door was made."""
        self._job_uid = job_uid
        self._secret = secret
        self._epoch = epoch
        self._link = link
        self._welcome = welcome
        self._newest = dict(known)
        self._awaited: dict[Identity, asyncio.Future[socket.socket]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    def listen(self, host: str, port: int) -> tuple[str, int]:
        """Bind; returns the address that was got (port 0 asks for any)."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        listener.setblocking(False)
        self._listener = listener
        name = listener.getsockname()
        return str(name[0]), int(name[1])

    async def serve(self) -> None:
        """Accept until cancelled."""
        assert self._listener is not None
        loop = asyncio.get_running_loop()
        gate = asyncio.Semaphore(_BACKLOG)
        try:
            while True:
                await gate.acquire()
                try:
                    sock, _ = await loop.sock_accept(self._listener)
                except OSError as error:
                    # Such as too many open files: those inside go on, and others may come in later.
                    log.warning("cannot accept a connection: %s", error)
                    gate.release()
                    await asyncio.sleep(_RECOVERY_SECONDS)
                    continue
                task = loop.create_task(self._enter(Channel(sock), gate))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            self._listener.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _enter(self, channel: Channel, gate: asyncio.Semaphore) -> None:
        try:
            try:
                async with asyncio.timeout(_HANDSHAKE_SECONDS):
                    hello = await examine(channel, self._secret, self._epoch)
                    refusal = self._refusal(hello.identity)
                    if refusal:
                        await refuse(channel, *refusal)
                        msg = f"particle {hello.identity.index}: {refusal[1]}"
                        raise LinkError(msg)
            finally:
                gate.release()
            if hello.purpose is Purpose.LINK:
                await self._bring_link(channel, hello.identity)
            else:
                await self._bring_control(channel, hello.identity)
        except (LinkError, OSError, TimeoutError) as error:
            log.info("connection refused: %s", str(error) or "the handshake took too long")
        except Exception:
            log.exception("a connection ended by an error of the synchronizer")
        finally:
            channel.close()

    def _refusal(self, identity: Identity) -> tuple[str, str] | None:
        if identity.job_uid != self._job_uid:
            return "WrongJob", f"this synchronizer serves job {self._job_uid}, not {identity.job_uid}"
        newest = self._newest.get(identity.index)
        if newest is not None and identity.incarnation < newest.incarnation:
            return "Fenced", f"incarnation {identity.incarnation} was replaced by {newest.incarnation}"
        if newest is not None and identity.incarnation == newest.incarnation and identity != newest:
            return "Fenced", f"another process is incarnation {identity.incarnation} already"
        return None

    async def _bring_control(self, channel: Channel, identity: Identity) -> None:
        self._newest[identity.index] = identity
        awaited = asyncio.get_running_loop().create_future()
        self._awaited[identity] = awaited
        try:
            await accept(channel, self._link)
            async with asyncio.timeout(_PAIRING_SECONDS):
                sock = await awaited
                link: Link = await open_link(self._link, sock, SYNCHRONIZER_RANK)
        finally:
            if self._awaited.get(identity) is awaited:
                del self._awaited[identity]
        peer = Peer(identity, channel, link)
        try:
            if self._newest[identity.index] != identity:
                msg = f"particle {identity.index}: incarnation {identity.incarnation} was replaced while it came in"
                raise LinkError(msg)
            await self._welcome(peer)
        finally:
            peer.close()

    async def _bring_link(self, channel: Channel, identity: Identity) -> None:
        awaited = self._awaited.get(identity)
        if awaited is None or awaited.done():
            msg = f"particle {identity.index} brought a link without a control connection"
            raise LinkError(msg)
        await accept(channel, self._link)
        if awaited.done():
            msg = f"particle {identity.index} brought its link too late"
            raise LinkError(msg)
        awaited.set_result(channel.release())
