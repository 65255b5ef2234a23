"""When a checkpoint is written, what the world is told of it, and what the next synchronizer goes on from."""

import asyncio
import itertools
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor

from swarm_api.report import CheckpointReport
from swarm_api.settings import Settings
from swarm_trainer.algorithms.base import Algorithm
from swarm_trainer.checkpoint.snapshot import Manifest, Saved, Snapshot, snapshot
from swarm_trainer.checkpoint.store import FencedError, Store, newest
from swarm_trainer.synchronizer.center import Version
from swarm_trainer.synchronizer.ledger import Ledger
from swarm_trainer.synchronizer.swarm import Swarm
from swarm_trainer.vectors import X
from swarm_trainer.wire.auth import Identity

log = logging.getLogger("swarm.synchronizer")


class Checkpoints:
    """Used from the event loop only; what touches the disk while the swarm trains runs in a thread of its own.

    No failure of the disk stops the training: it is told in the report, and tried again an interval later.
    """

    def __init__(self, swarm: Swarm, store: Store | None) -> None:
        """Without a store nothing is kept, and nothing remembered."""
        self._swarm = swarm
        self._store = store
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._begun = time.monotonic()
        self._fenced = False
        self._last: tuple[Version, Settings] | None = None
        """The center of the last commit: the ledger speaks of it, whatever is being merged meanwhile."""
        self._found: list[Saved] = []
        self.known: dict[int, Identity] = {}
        """The newest incarnation of each index in any checkpoint, also in one whose center turns out to be damaged."""
        self.report: CheckpointReport | None = None
        """None: none are kept."""
        if store is not None:
            self._open(store)

    async def recall(self) -> tuple[Manifest, Version] | None:
        """The newest checkpoint that is whole; the swarm's parts know again what they knew then."""
        found = await asyncio.to_thread(newest, self._found)
        self._found = []
        if found is None:
            return None
        saved, version = found
        for name, part in self._swarm.parts.items():
            if name in saved.manifest.parts:
                part.load(saved.manifest.parts[name])
        return saved.manifest, version

    def restored(self, manifest: Manifest) -> None:
        """The swarm goes on from this one."""
        self.report = CheckpointReport(round=manifest.round, error=self.report.error if self.report else "")
        self._swarm.gauges.checkpoint_round.set(manifest.round)

    def committed(self) -> None:
        """A round is merged: write a checkpoint of it if that is due and the last one is written."""
        swarm = self._swarm
        if self._store is None or swarm.center is None:
            return
        self._last = swarm.center.now, swarm.settings
        idle = self._writing is None or self._writing.done()
        if idle and time.monotonic() - self._begun >= swarm.settings.checkpoint.interval_seconds:
            self._begin()

    def last(self) -> None:
        """Write the last round, and wait until it is written."""
        if self._begin() and self._writing is not None:
            self._writing.result()

    def close(self) -> None:
        """Wait for what is being written. May be called twice."""
        self._thread.shutdown(wait=True)

    def _open(self, store: Store) -> None:
        self.report = CheckpointReport()
        try:
            store.claim()
        except FencedError as error:
            self._fence(error)
        except OSError as error:
            self._fail(_unwritable(store, error))
        try:
            self._found = store.saved()
        except OSError as error:
            self._fail(f"{store.folder} cannot be read: {error.strerror or error}")
        if self._found:
            self._swarm.schema = self._found[0].manifest.weights
        told = [Ledger.identities(saved.manifest.parts.get("ledger", ())) for saved in self._found]
        for identity in sorted(itertools.chain.from_iterable(told), key=lambda identity: identity.incarnation):
            self.known[identity.index] = identity

    def _begin(self) -> bool:
        """Begin to write the last commit, if it is newer than what is written; whether it does."""
        if self._store is None or self._last is None or self._fenced:
            return False
        version, settings = self._last
        if self.report is not None and version.round <= self.report.round:
            return False
        self._begun = time.monotonic()
        taken = snapshot(
            version,
            self._swarm.parts,
            job=settings.job,
            uid=settings.uid,
            epoch=self._store.epoch,
            generation=settings.generation,
            algorithm=settings.algorithm.name,
            weights=self._swarm.schema,
        )
        self._writing = self._thread.submit(self._write, self._store, taken, settings.checkpoint.keep)
        return True

    def _write(self, store: Store, taken: Snapshot, keep: int) -> None:
        """In the thread."""
        began, number = time.monotonic(), taken.manifest.round
        try:
            folder = store.write(taken, keep=keep)
        except FencedError as error:
            self._fence(error)
        except OSError as error:
            self._fail(_unwritable(store, error))
        except Exception:
            log.exception("a checkpoint was not written by an error of the synchronizer")
            self._fail("checkpoints are not written by an error of the synchronizer: see its log")
        else:
            self.report = CheckpointReport(round=number, time=time.time())
            gauges, seconds = self._swarm.gauges, time.monotonic() - began
            gauges.checkpoint_round.set(number)
            gauges.checkpoint_seconds.observe(seconds)
            log.info("checkpoint %s written in %.2f s", folder.name, seconds)

    def _fence(self, error: FencedError) -> None:
        self._fenced = True
        self._fail(str(error))

    def _fail(self, message: str) -> None:
        assert self.report is not None
        if message != self.report.error:
            log.warning("%s; the training goes on", message)
        self.report = self.report.model_copy(update={"error": message})
        self._swarm.gauges.checkpoint_failures.inc()


def _unwritable(store: Store, error: OSError) -> str:
    return f"checkpoints cannot be written to {store.folder}: {error.strerror or error}"


def under(algorithm: Algorithm, settings: Settings, manifest: Manifest, version: Version) -> Version:
    """The kept center for this algorithm: another one than it was kept under takes over the weights alone."""
    if manifest.algorithm == settings.algorithm.name:
        return version
    log.warning(
        "the checkpoint was made by %s and the job asks for %s now, which goes on from its weights alone",
        manifest.algorithm,
        settings.algorithm.name,
    )
    return Version(version.round, algorithm.center_state(version.weights[X]), version.vectors)
