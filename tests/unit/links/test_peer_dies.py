"""A peer in another process is killed or frozen, and the survivor hears of it."""

import asyncio
import signal
import time
from pathlib import Path

import pytest
import torch

from swarm_api.job import Link as LinkKind
from swarm_trainer.errors import LinkError, LinkTimeoutError
from swarm_trainer.links.base import Link
from unit.links.ends import BIG, KINDS, Peer

SITUATIONS = {
    "it idles and nobody speaks": ("idles", ""),
    "it idles and we receive": ("idles", "recv"),
    "it idles and our send is held back": ("idles", "send"),
    "it receives and we send nothing": ("receives", ""),
    "it has sent half of a tensor": ("sends half", "recv"),
}


async def under_way(link: Link, behaviour: str, ours: str) -> asyncio.Task[None] | None:
    """Our side of the situation, once it has come about."""
    if not ours:
        return None
    tensor = torch.zeros(BIG)
    task = asyncio.create_task(link.recv(tensor) if ours == "recv" else link.send(tensor))
    while behaviour == "sends half" and not tensor[BIG * 49 // 100]:  # noqa: ASYNC110  # only the memory shows it
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.05)
    assert not task.done()
    return task


@pytest.mark.parametrize(("behaviour", "ours"), SITUATIONS.values(), ids=SITUATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_peer_is_an_error_at_once(kind: LinkKind, behaviour: str, ours: str, tmp_path: Path) -> None:
    async def survive(peer: Peer) -> None:
        link = await peer.link()
        task = await under_way(link, behaviour, ours)
        began = time.monotonic()
        peer.signal(signal.SIGKILL)
        with pytest.raises(LinkError):
            await (task or link.recv(torch.zeros(3)))
        for next_one in (link.send(torch.zeros(3)), link.recv(torch.zeros(3))):
            with pytest.raises(LinkError):
                await next_one
        assert time.monotonic() - began < 1
        link.close()

    with Peer(kind, behaviour, tmp_path) as peer:
        asyncio.run(survive(peer))


@pytest.mark.parametrize(("behaviour", "ours"), [SITUATIONS[name] for name in SITUATIONS if SITUATIONS[name][1]])
@pytest.mark.parametrize("kind", KINDS)
def test_a_frozen_peer_is_a_timeout_after_the_progress_time(
    kind: LinkKind, behaviour: str, ours: str, tmp_path: Path
) -> None:
    async def survive(peer: Peer) -> None:
        link = await peer.link(progress_seconds=0.5)
        task = await under_way(link, behaviour, ours)
        assert task
        began = time.monotonic()
        peer.signal(signal.SIGSTOP)
        with pytest.raises(LinkTimeoutError):
            await task
        assert time.monotonic() - began < 1.5
        link.close()

    with Peer(kind, behaviour, tmp_path) as peer:
        asyncio.run(survive(peer))
