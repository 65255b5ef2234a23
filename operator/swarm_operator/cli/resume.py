"""`swarm run --resume`: the manifest of a run that ended, and what must be remembered of it."""

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from swarm_api.job import SwarmTrainingJob
from swarm_api.status import Attempt, JobState, JobStatus
from swarm_operator.backends.local.control import answers
from swarm_operator.backends.local.folder import FolderError, RunFolder
from swarm_operator.cli.manifest import Manifest, ManifestError, Where, load
from swarm_operator.plan.ends import Reason
from swarm_operator.plan.times import stamp
from swarm_operator.plan.view import SYNCHRONIZER


def resume(path: Path, changes: Sequence[tuple[Where, Any]]) -> tuple[Manifest, RunFolder]:
    """The job of the run in this folder, ready to go on there: the same job to its checkpoints, in newer incarnations.

    Raises:
        FolderError: It is no run, or one that still runs or is complete.
        ManifestError: Its manifest, with these changes, is no valid job, or another one.
    """
    folder = RunFolder.open(path)
    if answers(folder.socket):
        raise FolderError(f"{path}: its swarm run still runs: stop that first")
    status = JobStatus.model_validate_json(folder.status.read_text()) if folder.status.exists() else JobStatus()
    if status.state is JobState.COMPLETE:
        raise FolderError(f"{path} is complete: its model is {folder.shown(folder.model)}")
    record = json.loads(folder.run.read_text())
    home = Path(folder.home.read_text()) if folder.home.exists() else None
    manifest = load(folder.manifest, changes, home=home)
    if manifest.job.metadata.name != record["job"]:
        raise ManifestError([f"metadata.name: this is the run of {record['job']}: start another job by its manifest"])
    return replace(manifest, job=_going_on(manifest.job, record, status)), folder


def _going_on(job: SwarmTrainingJob, record: dict[str, Any], status: JobStatus) -> SwarmTrainingJob:
    """Every incarnation of before has ended by the user's wish: no failure, no setback, and its number is used."""
    highest = {key: attempt.incarnation for key, attempt in status.attempts.items()}
    for member in record["members"]:
        key = SYNCHRONIZER if member["role"] == SYNCHRONIZER else str(member["index"])
        highest[key] = max(highest.get(key, 0), member["incarnation"])
    now = stamp(time.time())
    attempts = {
        key: Attempt(incarnation=incarnation, ended_at=now, last_reason=Reason.SUSPENDED)
        for key, incarnation in highest.items()
        if incarnation
    }
    metadata = job.metadata.model_copy(update={"uid": record["uid"]})
    fresh = JobStatus(attempts=attempts, training=status.training)
    return job.model_copy(update={"metadata": metadata, "status": fresh})
