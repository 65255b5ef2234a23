"""Settings that change while the swarm trains. A new generation begins between two commits.

Where the algorithm or the rules of the exchange change, pushes that wait for their round, or are still on their way,
were made under the old ones: they are handed back with the new settings, and their particles push again at once.
So no round ever merges two generations. How many particles there are concerns no push.
"""

import logging

from swarm_api.settings import Settings
from swarm_trainer.algorithms import build
from swarm_trainer.synchronizer.answers import Answers
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.wire.messages import Push, ReplyStatus

log = logging.getLogger("swarm.synchronizer")


class Generations:
    """Used from the event loop only."""

    def __init__(self, swarm: Swarm, answers: Answers) -> None:
        self._swarm = swarm
        self._answers = answers
        self._coming: Settings | None = None
        self._exchange = swarm.settings.generation
        """The first generation whose pushes may be merged now."""

    def announce(self, settings: Settings) -> None:
        """They hold from the next `begin` on."""
        self._coming = settings
        self._swarm.changed.set()

    def covers(self, push: Push) -> bool:
        """Whether the push was made under what holds now."""
        return push.generation >= self._exchange

    async def begin(self) -> None:
        """Take the settings that were announced, if any: nothing may be under way to a commit."""
        if self._coming is None:
            return
        swarm, before = self._swarm, self._swarm.settings
        # Who finished is known better here.
        settings, self._coming = self._coming.model_copy(update={"finished": before.finished}), None
        if settings.algorithm == before.algorithm and settings.sync == before.sync:
            swarm.use(settings, swarm.algorithm)
            return
        name, algorithm = settings.algorithm.name, build(settings.algorithm)
        if (center := swarm.center) is not None:
            await swarm.in_merge_thread(lambda: center.follow(algorithm, anew=name is not before.algorithm.name))
        self._exchange = settings.generation
        swarm.use(settings, algorithm)
        swarm.rounds.renew()
        self._hand_back()
        swarm.journal.note("settings", generation=settings.generation, algorithm=name, round=swarm.round)
        log.info("settings of generation %d from round %d on: %s", settings.generation, swarm.round + 1, name)

    def _hand_back(self) -> None:
        for peer in self._swarm.peers.values():
            if peer.push is not None:
                push, peer.push = peer.push, None
                self._answers.give(peer, push, ReplyStatus.HELD, settings=self._swarm.settings)
