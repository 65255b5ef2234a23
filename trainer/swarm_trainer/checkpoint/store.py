"""The folder of a job's checkpoints: only the newest synchronizer writes to it, and the newest few stay.

    EPOCH               whose turn it is: epoch and uid of the job
    120-2/              round 120, written by synchronizer 2
    .140-2.partial/     being written, or left by one that died

A checkpoint gets its name when it is whole. A synchronizer that was replaced and does not know it looks at EPOCH before
and after it writes; one that passes in the very moment of the change leaves a checkpoint of its older epoch, which
no newer one is sorted behind.
"""

import logging
import os
import re
import shutil
from pathlib import Path
from typing import Final

from swarm_trainer.checkpoint.snapshot import DamagedError, Saved, Snapshot, sync_folder, write
from swarm_trainer.errors import SwarmError
from swarm_trainer.synchronizer.center import Version

log = logging.getLogger("swarm.synchronizer")

EPOCH_FILE: Final = "EPOCH"
_NAME: Final = re.compile(r"(\d+)-(\d+)")
_LEFTOVERS: Final = ".*.partial"


class FencedError(SwarmError):
    """A newer synchronizer writes here now."""


class Store:
    """Used by one thread at a time."""

    def __init__(self, folder: Path, *, uid: str, epoch: int) -> None:
        self.folder = folder
        self._uid = uid
        self.epoch = epoch
        self._claimed = False

    def claim(self) -> None:
        """Take the folder for this epoch, or see that it is still ours.

        Raises:
            FencedError: It belongs to a newer synchronizer.
            OSError: It cannot be written to.
        """
        uid, epoch = self._holder()
        newer = uid == self._uid and epoch > self.epoch
        if newer or (self._claimed and uid not in ("", self._uid)):
            whose = f"synchronizer {epoch}" if newer else f"a synchronizer of job {uid}"
            msg = f"{self.folder} belongs to {whose} now: synchronizer {self.epoch} writes no checkpoints any more"
            raise FencedError(msg)
        if (uid, epoch) != (self._uid, self.epoch):
            # Also from an older one that looked before this one wrote, and wrote after.
            self.folder.mkdir(parents=True, exist_ok=True)
            fresh = self.folder / f".{EPOCH_FILE}.new"
            with fresh.open("w") as file:
                file.write(f"{self.epoch} {self._uid}\n")
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(self.folder / EPOCH_FILE)
            sync_folder(self.folder)
        if not self._claimed:
            for leftover in self.folder.glob(_LEFTOVERS):
                shutil.rmtree(leftover, ignore_errors=True)
        self._claimed = True

    def saved(self) -> list[Saved]:
        """The job's checkpoints, newest first. What is damaged or another job's is left out, and a warning names it."""
        found, foreign = [], set()
        for folder in self._folders():
            try:
                each = Saved.open(folder)
            except DamagedError as error:
                log.warning("checkpoint %s is passed over: %s", folder.name, error)
                continue
            if each.manifest.uid == self._uid:
                found.append(each)
            else:
                foreign.add(f"{each.manifest.job} ({each.manifest.uid})")
        if foreign:
            log.warning("%s also holds checkpoints of other jobs, which are left alone: %s", self.folder, foreign)
        return sorted(found, key=lambda each: each.manifest.order, reverse=True)

    def write(self, snapshot: Snapshot, *, keep: int) -> Path:
        """Write a checkpoint, whole or not at all, and remove all but the newest `keep`; returns its folder.

        Raises:
            FencedError: Only a newer synchronizer may.
            OSError: It cannot be written.
        """
        self.claim()
        name = f"{snapshot.manifest.round}-{snapshot.manifest.epoch}"
        partial, target = self.folder / f".{name}.partial", self.folder / name
        shutil.rmtree(partial, ignore_errors=True)
        try:
            write(partial, snapshot)
            self.claim()
            self._discard(target)
            partial.rename(target)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(self.folder)
        for old in self._own()[keep:]:
            try:
                self._discard(old)
            except OSError as error:
                log.warning("checkpoint %s cannot be removed: %s", old.name, error)
        return target

    def _holder(self) -> tuple[str, int]:
        """Uid and epoch; an empty uid: nobody, as where the file is missing or nonsense."""
        try:
            epoch, _, uid = (self.folder / EPOCH_FILE).read_text(encoding="utf-8").strip().partition(" ")
            return uid, int(epoch)
        except (FileNotFoundError, ValueError):
            return "", 0

    def _folders(self) -> list[Path]:
        """Of everything that has a checkpoint's name, newest first."""
        if not self.folder.is_dir():
            return []
        named = [(match, path) for path in self.folder.iterdir() if (match := _NAME.fullmatch(path.name))]
        return [path for match, path in sorted(named, key=lambda item: (int(item[0][2]), int(item[0][1])))][::-1]

    def _own(self) -> list[Path]:
        """The same without other jobs'."""
        return [folder for folder in self._folders() if not self._is_foreign(folder)]

    def _is_foreign(self, folder: Path) -> bool:
        try:
            return Saved.open(folder).manifest.uid != self._uid
        except DamagedError:
            return False

    def _discard(self, folder: Path) -> None:
        """Under a name that nobody reads first: half a checkpoint must not look like one."""
        if folder.exists():
            old = folder.with_name(f".{folder.name}.old.partial")
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
            shutil.rmtree(old, ignore_errors=True)


def newest(found: list[Saved]) -> tuple[Saved, Version] | None:
    """The first of these that is whole, and its center; a warning names each that is not."""
    for saved in found:
        try:
            return saved, saved.version()
        except DamagedError as error:
            log.warning("checkpoint %s is passed over: %s", saved.folder.name, error)
    return None
