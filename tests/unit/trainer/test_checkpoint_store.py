"""Checkpoints on disk: what is written is what is read, or it is not read at all."""

import errno
import math
import os
import random
import resource
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from swarm_trainer.checkpoint import store as store_module
from swarm_trainer.checkpoint.snapshot import DamagedError, Saved, Snapshot, snapshot
from swarm_trainer.checkpoint.store import FencedError, Store, newest
from swarm_trainer.synchronizer.center import Version
from swarm_trainer.vectors import BUFFERS, INTEGERS, X
from swarm_trainer.weights import FlatWeights
from unit.trainer.in_process import a_model

SCHEMA = FlatWeights(a_model()).schema


class Notes:
    """A part."""

    def __init__(self, dumped: Any = None) -> None:
        self.dumped = dumped

    def dump(self) -> Any:
        return self.dumped

    def load(self, dumped: Any) -> None:
        self.dumped = dumped


def a_version(round_: int = 120, size: int = 1000) -> Version:
    x = torch.randn(size, generator=torch.Generator().manual_seed(round_))
    state = {X: x, "best": x, "part": x[10:20], "low": x.bfloat16(), "scale": torch.tensor(3.0), "best_loss": math.inf}
    return Version(round_, state, {BUFFERS: torch.ones(4), INTEGERS: torch.tensor([2**60])})


def a_snapshot(round_: int = 120, *, epoch: int = 1, uid: str = "u", size: int = 1000, notes: Any = None) -> Snapshot:
    origin = {"job": "mnist", "uid": uid, "epoch": epoch, "generation": 3, "algorithm": "PSOPS", "weights": SCHEMA}
    return snapshot(a_version(round_, size), {"notes": Notes(notes)}, **origin)


def a_store(folder: Path, epoch: int = 1, uid: str = "u") -> Store:
    return Store(folder / "kept", uid=uid, epoch=epoch)


def names(store: Store) -> list[str]:
    return [saved.folder.name for saved in store.saved()]


def same(found: Version, wanted: Version) -> bool:
    return all(
        found_of.keys() == wanted_of.keys()
        and all(
            torch.equal(found_of[name], value) if isinstance(value, torch.Tensor) else found_of[name] == value
            for name, value in wanted_of.items()
        )
        for found_of, wanted_of in ((found.state, wanted.state), (found.vectors, wanted.vectors))
    )


def test_what_was_written_is_read_again_bit_for_bit(tmp_path: Path) -> None:
    notes = {"units": [[0, 3], [5, 9]], 7: "seven", "none": None}
    folder = a_store(tmp_path).write(a_snapshot(notes=notes), keep=3)
    (saved,) = a_store(tmp_path, epoch=2).saved()
    manifest = saved.manifest
    assert (manifest.job, manifest.uid, manifest.round, manifest.order) == ("mnist", "u", 120, (1, 120))
    assert (manifest.generation, manifest.algorithm, manifest.weights) == (3, "PSOPS", SCHEMA)
    assert manifest.parts == {"notes": {"units": [[0, 3], [5, 9]], "7": "seven", "none": None}}
    assert same(saved.version(), a_version())
    assert torch.equal(load_file(folder / "center.safetensors")["state.x"], a_version().weights[X])


def test_nothing_that_was_changed_or_cut_off_or_lost_is_believed(tmp_path: Path) -> None:
    whole = a_store(tmp_path).write(a_snapshot(), keep=3)
    chance = random.Random(1)
    for path in sorted(whole.iterdir()):
        content = path.read_bytes()
        changes = [content[:cut] for cut in (0, 1, len(content) // 2, len(content) - 1)]
        for place in chance.sample(range(len(content)), 60):
            changes.append(
                content[:place] + bytes([content[place] ^ (1 << chance.randrange(8))]) + content[place + 1 :]
            )
        for changed in [*changes, None]:
            damaged = tmp_path / "kept" / "121-1"
            shutil.copytree(whole, damaged)
            (damaged / path.name).unlink()
            if changed is not None:
                (damaged / path.name).write_bytes(changed)
            with pytest.raises(DamagedError, match=path.name):
                Saved.open(damaged).version()
            shutil.rmtree(damaged)


def test_the_newest_that_is_whole_is_taken_and_each_that_is_not_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = a_store(tmp_path)
    for round_ in (100, 110, 120):
        store.write(a_snapshot(round_), keep=3)
    os.truncate(tmp_path / "kept" / "120-1" / "center.safetensors", 100)
    (tmp_path / "kept" / "110-1" / "manifest.json").write_text("{}")
    found = newest(a_store(tmp_path, epoch=2).saved())
    assert found is not None
    saved, version = found
    assert saved.folder.name == "100-1"
    assert same(version, a_version(100))
    assert "checkpoint 120-1 is passed over" in caplog.text
    assert "checkpoint 110-1 is passed over" in caplog.text
    assert newest([]) is None


def test_the_newest_few_stay_and_a_higher_epoch_is_newer_than_a_higher_round(tmp_path: Path) -> None:
    first = a_store(tmp_path)
    for round_ in (9, 10, 11):
        first.write(a_snapshot(round_), keep=2)
    assert names(first) == ["11-1", "10-1"]
    second = a_store(tmp_path, epoch=2)
    second.write(a_snapshot(8, epoch=2), keep=2)
    assert names(second) == ["8-2", "11-1"]
    second.write(a_snapshot(8, epoch=2), keep=1)
    assert sorted(path.name for path in second.folder.iterdir()) == ["8-2", "EPOCH"]


def test_what_a_crash_left_half_written_is_nobodys_checkpoint_and_goes_when_the_next_one_begins(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    whole = store.write(a_snapshot(100), keep=3)
    partial = store.folder / ".120-1.partial"
    shutil.copytree(whole, partial)
    os.truncate(partial / "center.safetensors", 10)
    successor = a_store(tmp_path, epoch=2)
    assert names(successor) == ["100-1"]
    successor.claim()
    assert sorted(path.name for path in store.folder.iterdir()) == ["100-1", "EPOCH"]


def test_only_the_newest_epoch_may_write(tmp_path: Path) -> None:
    stale, current = a_store(tmp_path), a_store(tmp_path, epoch=2)
    stale.write(a_snapshot(100), keep=3)
    current.claim()
    for _ in range(2):
        with pytest.raises(FencedError, match="belongs to synchronizer 2 now: synchronizer 1 writes no checkpoints"):
            stale.write(a_snapshot(110), keep=1)
    current.write(a_snapshot(105, epoch=2), keep=3)
    assert names(current) == ["105-2", "100-1"]
    with pytest.raises(FencedError):
        a_store(tmp_path).claim()


def test_an_older_one_that_takes_the_folder_at_the_same_moment_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_store(tmp_path).claim()
    older, newer = a_store(tmp_path, epoch=2), a_store(tmp_path, epoch=3)
    holder = older._holder

    def looks_before_the_newer_one_claims() -> tuple[str, int]:
        found = holder()
        newer.claim()
        return found

    monkeypatch.setattr(older, "_holder", looks_before_the_newer_one_claims)
    older.claim()
    monkeypatch.undo()
    assert newer.write(a_snapshot(100, epoch=3), keep=3).name == "100-3"
    with pytest.raises(FencedError, match="belongs to synchronizer 3 now"):
        older.write(a_snapshot(100, epoch=2), keep=3)


@pytest.mark.parametrize("nonsense", [b"\xff\xfe\x00", b"", b"7", b"two u\n", b"9" * 5000 + b" u\n"])
def test_an_epoch_that_cannot_be_read_is_nobodys(tmp_path: Path, nonsense: bytes) -> None:
    store = a_store(tmp_path)
    store.claim()
    for claimant in (store, a_store(tmp_path, epoch=2)):
        (store.folder / "EPOCH").write_bytes(nonsense)
        claimant.claim()
        assert (store.folder / "EPOCH").read_text() == f"{claimant.epoch} u\n"


def test_one_that_is_replaced_while_it_writes_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale, real = a_store(tmp_path), store_module.write

    def overtaken(folder: Path, taken: Snapshot) -> None:
        real(folder, taken)
        a_store(tmp_path, epoch=2).claim()

    monkeypatch.setattr(store_module, "write", overtaken)
    with pytest.raises(FencedError):
        stale.write(a_snapshot(), keep=3)
    assert [path.name for path in stale.folder.iterdir()] == ["EPOCH"]


def test_checkpoints_of_another_job_are_neither_taken_nor_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older = a_store(tmp_path, uid="old", epoch=5)
    older.write(a_snapshot(500, epoch=5, uid="old"), keep=1)
    store = a_store(tmp_path)
    assert store.saved() == []
    assert "also holds checkpoints of other jobs" in caplog.text
    store.write(a_snapshot(10), keep=1)
    store.write(a_snapshot(20), keep=1)
    assert names(store) == ["20-1"]
    assert (store.folder / "500-5").is_dir()
    with pytest.raises(FencedError, match="belongs to a synchronizer of job u now"):
        older.write(a_snapshot(510, epoch=5, uid="old"), keep=1)


@contextmanager
def a_full_disk(folder: Path) -> Iterator[None]:
    """A disk of 64 kB at this folder, else a limit on files of that size."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() == 0 and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        try:
            yield
        finally:
            subprocess.run(["umount", str(folder)], check=True)
    else:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_does_not_fit_leaves_the_older_ones_and_no_rest(tmp_path: Path) -> None:
    store = a_store(tmp_path)
    with a_full_disk(store.folder):
        store.write(a_snapshot(100, size=10), keep=3)
        for _ in range(2):
            with pytest.raises(OSError, match=r"No space left|File too large"):
                store.write(a_snapshot(110, size=100_000), keep=3)
        assert sorted(path.name for path in store.folder.iterdir()) == ["100-1", "EPOCH"]
        assert same(store.saved()[0].version(), a_version(100, size=10))
        store.write(a_snapshot(120, size=20), keep=3)
        assert names(store) == ["120-1", "100-1"]


def test_a_filesystem_that_cannot_sync_folders_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def of_files_only(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", of_files_only)
    store = a_store(tmp_path)
    store.write(a_snapshot(), keep=3)
    assert same(store.saved()[0].version(), a_version())


def test_a_folder_that_cannot_be_made_is_an_error_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "kept").touch()
    store = a_store(tmp_path)
    with pytest.raises(OSError, match="kept"):
        store.claim()
    assert store.saved() == []
