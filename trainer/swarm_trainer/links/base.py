"""What the exchange needs of a link: one tensor after the other, between a particle and its synchronizer.

A link is a two-rank torch.distributed process group: rank 0 is the synchronizer, rank 1 the particle. Tensors
move through the methods of that group and through nothing else. A link is good for one attachment: after its
first error it is closed and a new one is made.
"""

from typing import Protocol

import torch

from swarm_trainer.errors import LinkError

SYNCHRONIZER_RANK = 0
PARTICLE_RANK = 1


class Link(Protocol):
    """The synchronizer's end is driven by its event loop; no link has a thread of its own there."""

    async def send(self, tensor: torch.Tensor) -> None:
        """Send a contiguous CPU tensor whole.

        Raises:
            LinkError: The peer is gone, made no progress, or the link was closed.
        """
        ...

    async def recv(self, tensor: torch.Tensor) -> None:
        """Receive into a contiguous CPU tensor of exactly the dtype and size that the peer sends.

        Raises:
            LinkError: As for `send`, or the peer sends another dtype or size; the process lives on.
        """
        ...

    @property
    def moved_at(self) -> float:
        """When a byte last moved in either direction, or an operation began on an idle link; monotonic seconds."""
        ...

    def close(self) -> None:
        """End it; sends and receives under way fail at once with LinkError. May be called twice."""
        ...


def again(error: LinkError) -> LinkError:
    """The same error to be raised once more; who raises one adds frames to it, and frames hold tensors alive."""
    return type(error)(*error.args)
