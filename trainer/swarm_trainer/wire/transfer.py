"""Tensors that a message announces, on the link behind it."""

from collections.abc import Callable, Iterable, Mapping

import torch

from swarm_trainer.links.base import Link


async def send_tensors(link: Link, tensors: Mapping[str, torch.Tensor]) -> None:
    """Send them in the mapping's order.

    Raises:
        LinkError: The link broke.
    """
    for tensor in tensors.values():
        await link.send(tensor)


async def recv_tensors(
    link: Link, names: Iterable[str], room_for: Callable[[str], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Receive each announced tensor into the room that is given for its name.

    Raises:
        LinkError: The link broke, or a tensor has another dtype or size than its room.
    """
    received = {}
    for name in names:
        room = room_for(name)
        await link.recv(room)
        received[name] = room
    return received
