"""What a particle says while it waits for its first welcome: `attach` has no time limit, so its log tells why."""

import asyncio
import logging
import time
from typing import Final

from swarm_trainer.errors import LinkError
from swarm_trainer.surroundings import Surroundings

log = logging.getLogger("swarm.particle")

_FIRST_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 60.0


class Waiting:
    """Kept up to date by whoever tries; for one event loop."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self.inside = False
        """A synchronizer has let the particle in, which is welcome once the swarm is founded."""
        self.reason = "it does not answer"
        """Why the last attempt failed."""
        self._telling: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Say after a while, and each minute from then on, what is waited for."""
        self._telling = asyncio.get_running_loop().create_task(self._tell())

    def end(self) -> None:
        """The welcome is there."""
        if self._telling is not None:
            self._telling.cancel()

    async def _tell(self) -> None:
        began = time.monotonic()
        await asyncio.sleep(_FIRST_SECONDS)
        while True:
            seconds = time.monotonic() - began
            if self.inside:
                log.info(
                    "waiting for %.0f s: the synchronizer is there, and welcomes once the swarm is founded", seconds
                )
            else:
                log.warning(
                    "no synchronizer at %s for %.0f s: %s. Check that it is running, and that its address, the "
                    "NetworkPolicy and the job's secret are right; the particle goes on trying",
                    self._address(),
                    seconds,
                    self.reason,
                )
            await asyncio.sleep(_AGAIN_SECONDS)

    def _address(self) -> str:
        try:
            host, port = self._surroundings.synchronizer()
        except LinkError:
            return str(self._surroundings.address_file or self._surroundings.address)
        return f"{host}:{port}"
