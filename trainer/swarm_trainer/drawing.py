"""Units for one pass over a loader, asked for before they run out."""

from collections.abc import Callable, Iterator

from swarm_trainer.leases import Pass
from swarm_trainer.session import Session
from swarm_trainer.wire.messages import Lease
from swarm_trainer.wire.units import Spans, Unit


class Drawing:
    """Used by whoever iterates over the loader.

    Args:
        session: Where units come from.
        begun: The pass.
        calls: Numbers of calls of `batches` with the same loader.
        replicas: Among how many the data is shared out now; without a synchronizer that says which units to take.
    """

    def __init__(self, session: Session, begun: Pass, calls: Spans, replicas: Callable[[], int]) -> None:
        self._session = session
        self._begun = begun
        self._calls = calls
        self._replicas = replicas

    def more(self) -> bool:
        """Whether there is anything to draw, as of now: what others leave may come later."""
        self._begun.over = False
        self._fill()
        return bool(self._begun.ready)

    def units(self) -> Iterator[Unit]:
        """Draw until there is nothing."""
        begun = self._begun
        while True:
            if count := begun.wants:
                self._ask(count)
            self._fill()
            unit = self._session.leases.draw(begun)
            if unit is None:
                return
            yield unit

    def _fill(self) -> None:
        begun, session = self._begun, self._session
        while not begun.ready and not begun.over:
            if not begun.asked and not self._ask(begun.window):
                session.leases.help_itself(begun, self._replicas())
                return
            session.leases.wait(begun)

    def _ask(self, count: int) -> bool:
        stream = self._begun.stream
        return self._session.ask(self._begun, Lease(stream=stream, count=count, calls=self._calls.pack()))
