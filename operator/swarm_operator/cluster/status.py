"""The status as the API server holds it: read leniently, written as the difference, and what a refused job says."""

import copy
from collections.abc import Mapping
from typing import Any, Final

from pydantic import ValidationError

from swarm_api.status import Condition, JobStatus
from swarm_operator.plan import worth_writing
from swarm_operator.plan.times import stamp

STRUCTURE_SECONDS: Final = 1.0
"""Between two writes of one job at least."""
WRITING_SHARE: Final = 0.05
"""Of the time that may pass with the writes of one job: with a thousand particles one keeps the API server busy."""
LONGEST_PAUSE: Final = 10.0
"""What matters waits no longer than so because writes take long: a throttled one may take a minute."""

LONGEST: Final = 4000
"""Characters of a message."""

_SPARSE: Final = ("attempts", "particleStatuses")
"""Of a thousand particles every field counts: there defaults are left out."""


def dumped(status: JobStatus) -> dict[str, Any]:
    """As it is written."""
    full = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    sparse = status.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return {**full, **{name: sparse.get(name, type(full[name])()) for name in _SPARSE}}


def loaded(raw: Mapping[str, Any] | None) -> JobStatus:
    """What was written once, maybe by another version of the operator: what is not understood is left out."""
    found = copy.deepcopy(dict(raw or {}))
    try:
        return JobStatus.model_validate(found)
    except ValidationError as error:
        problems = error.errors()
    for problem in problems:
        if problem["type"] == "extra_forbidden":
            _delete(found, problem["loc"])
        else:
            found.pop(str(problem["loc"][0]), None)
    try:
        return JobStatus.model_validate(found)
    except ValidationError:
        return JobStatus()


def merge_patch(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON merge patch (RFC 7386) that makes the one of the other."""
    patch: dict[str, Any] = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            if inner := merge_patch(old, value):
                patch[key] = inner
        elif key not in before or value != old:
            patch[key] = value
    return patch


def due(written: JobStatus, new: JobStatus, since: float, took: float, progress: float) -> float | None:
    """Seconds until the new status should be written; None: nothing is new.

    Args:
        written: What the last write wrote.
        new: What is so now.
        since: Seconds since that write.
        took: Seconds that it took, with all waiting for a busy server. The end of a job does not wait for that.
        progress: Seconds between two writes of which the second only moves numbers; nothing waits for longer.
    """
    if new == written:
        return None
    if not worth_writing(written, new, STRUCTURE_SECONDS):
        return max(0.0, progress - since)
    ends = new.state.ended and not written.state.ended
    share = 0.0 if ends else min(took / WRITING_SHARE, LONGEST_PAUSE, progress)
    return max(0.0, max(STRUCTURE_SECONDS, share) - since)


def is_refused(status: JobStatus) -> bool:
    """Whether the user was told that the job cannot be run as it is written."""
    accepted = status.condition("Accepted")
    return accepted is not None and accepted.status == "False"


def refused(status: JobStatus, before: JobStatus, generation: int, reason: str, message: str, now: float) -> JobStatus:
    """The status of a job that cannot be run as it is written; before: what was said of it last."""
    last = before.condition("Accepted")
    condition = Condition(
        type="Accepted",
        status="False",
        reason=reason,
        message=message[:LONGEST],
        last_transition_time=last.last_transition_time if last and is_refused(before) else stamp(now),
        observed_generation=generation,
    )
    others = tuple(each for each in status.conditions if each.type != "Accepted")
    return status.model_copy(update={"conditions": (condition, *others), "observed_generation": generation})


def _delete(found: dict[str, Any], path: tuple[int | str, ...]) -> None:
    place: Any = found
    for step in path[:-1]:
        place = place.get(step) if isinstance(place, dict) else place[step]
        if place is None:  # its whole was taken out before
            return
    place.pop(path[-1], None)
