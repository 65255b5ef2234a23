"""Where a newcomer's optimizer and registered state come from: one of the particles that train already.

The synchronizer keeps no copy of its own, since that would have to be fetched every round. It asks when a newcomer
does, and passes on what comes.
"""

import asyncio
import logging
import time
from collections.abc import Collection

from swarm_api.report import Presence
from swarm_trainer.errors import LinkError
from swarm_trainer.synchronizer.peer import Peer
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.vectors import Tensors, donation_rooms
from swarm_trainer.wire import messages as say

log = logging.getLogger("swarm.synchronizer")

_SILENT_HEARTBEATS = 3

Gift = tuple[say.Donation, Tensors]


class Donors:
    """Used from the event loop only.

    All newcomers that wait at one time are given the same. A donor that is gone is replaced by another at once; one
    that does not answer is joined by another after a third of the deadline, and whoever answers first is taken.
    """

    def __init__(self, swarm: Swarm) -> None:
        self._swarm = swarm
        self._heirs: set[Peer] = set()
        self._search: asyncio.Task[None] | None = None

    def wanted(self, heir: Peer) -> None:
        """A newcomer asks; it is answered within the deadline, be it that nobody gave anything.

        Raises:
            LinkError: It is no member.
        """
        if not heir.admitted:
            msg = "a newcomer asked for a donation before its welcome"
            raise LinkError(msg)
        self._heirs.add(heir)
        if self._search is None:
            self._search = asyncio.get_running_loop().create_task(self._provide())

    async def given(self, donor: Peer, donation: say.Donation) -> None:
        """A donor answers.

        Raises:
            LinkError: It is gone, or sends more than it may.
        """
        schema = self._swarm.schema
        assert schema is not None
        rooms = donation_rooms(schema, donation)
        tensors = await donor.take(donation.tensors, rooms, rooms.__getitem__, keep=True)
        asked, donor.donation = donor.donation, None
        if asked is not None and not asked.done():
            asked.set_result((donation.model_copy(update={"donor": donor.index}), tensors))

    async def _provide(self) -> None:
        donation, tensors = await self._find()
        heirs, self._heirs, self._search = self._heirs, set(), None
        for heir in filter(self._swarm.holds, heirs):
            self._swarm.answer(heir, donation, tensors)
            self._swarm.note("inherited", heir, donor=donation.donor)
            log.info("particle %d inherits from %s", heir.index, donation.problem or f"particle {donation.donor}")

    async def _find(self) -> Gift:
        """The first donation that comes, or one that says why there is none."""
        deadline = self._swarm.settings.sync.deadline_seconds
        give_up = time.monotonic() + deadline
        asked: dict[asyncio.Future[Gift], Peer] = {}
        while True:
            left = give_up - time.monotonic()
            donor = self._next(asked.values()) if left > 0 else None
            if donor is not None:
                asked[self._ask(donor)] = donor
            pending = [future for future in asked if not future.done()]
            if not pending:
                return say.Donation(problem="no other particle could be asked"), {}
            under_way = any(asked[future].transferring for future in pending)
            if left <= 0 and not under_way:
                return say.Donation(problem=f"no other particle gave its own within {deadline} s"), {}
            # A transfer on which nothing moves ends by itself.
            patience = deadline / 3 if under_way else min(left, deadline / 3)
            done, _ = await asyncio.wait(pending, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                if not future.cancelled():
                    return future.result()

    def _next(self, asked: Collection[Peer]) -> Peer | None:
        """The one that has most to give, of those that are likely to answer."""
        swarm = self._swarm
        silence = _SILENT_HEARTBEATS * swarm.settings.sync.heartbeat_seconds
        candidates = [
            peer
            for peer in swarm.peers.values()
            if peer.admitted and peer not in self._heirs and peer not in asked
            if swarm.ledger[peer.index].presence is Presence.ATTACHED
        ]
        return min(
            candidates,
            key=lambda peer: (peer.silent_seconds > silence, -swarm.ledger[peer.index].contributions, peer.index),
            default=None,
        )

    def _ask(self, donor: Peer) -> asyncio.Future[Gift]:
        if donor.donation is None:  # Else it has yet to answer an earlier question.
            donor.donation = asyncio.get_running_loop().create_future()
            self._swarm.answer(donor, say.Donate())
            log.info("particle %d is asked for its optimizer's and registered state", donor.index)
        return donor.donation
