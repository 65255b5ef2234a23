"""A torch.distributed store for two: what one side sets, the other gets."""

import threading
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import Store  # type: ignore[attr-defined]

from swarm_trainer.errors import LinkError, LinkTimeoutError


class PeerStore(Store):
    """Enough of a store for a process group of two ranks to find itself, over any connection they have already.

    Args:
        publish: Carries an entry to the peer, where it goes into `receive`; called from any thread.
        seconds: How long `get` and `wait` wait, unless told otherwise.
    """

    def __init__(self, publish: Callable[[str, bytes], None], seconds: float) -> None:
        super().__init__()
        self._publish = publish
        self._seconds = seconds
        self._entries: dict[str, bytes] = {}
        self._error: LinkError | None = None
        self._changed = threading.Condition()

    def set(self, key: str, value: bytes) -> None:  # type: ignore[override]
        """Have it on both sides."""
        self.receive(key, value)
        self._publish(key, value)

    def get(self, key: str) -> bytes:
        """Wait for it, as `wait` does."""
        self.wait([key])
        return self._entries[key]

    def wait(self, keys: list[str], timeout: timedelta | None = None) -> None:
        """Block until all keys are there.

        Raises:
            LinkError: The connection to the peer ended.
            LinkTimeoutError: They did not come in time.
        """
        seconds = timeout.total_seconds() if timeout else self._seconds
        with self._changed:
            self._changed.wait_for(lambda: self._error or self.check(keys), seconds)
            if self.check(keys):
                return
            raise self._error or LinkTimeoutError(f"the peer's gloo address did not come within {seconds:g} s")

    def check(self, keys: list[str]) -> bool:
        """Whether all are there."""
        return all(key in self._entries for key in keys)

    def receive(self, key: str, value: bytes) -> None:
        """Take an entry that the peer published."""
        with self._changed:
            self._entries[key] = value
            self._changed.notify_all()

    def fail(self, error: LinkError) -> None:
        """Free whoever waits: nothing more will come."""
        with self._changed:
            self._error = error
            self._changed.notify_all()
