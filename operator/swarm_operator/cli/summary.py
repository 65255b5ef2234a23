"""What stands on the screen when a run is over."""

import logging
import shlex
from collections.abc import Iterator
from pathlib import Path

from swarm_operator.backends.local.folder import RunFolder
from swarm_operator.cli.session import Outcome
from swarm_operator.page.history import read
from swarm_operator.page.words import duration, loss_text, number_of, plain
from swarm_operator.plan.facts import Member, Role

log = logging.getLogger(__name__)


def summary(outcome: Outcome, folder: RunFolder) -> str:
    """State, numbers, why it failed, and where everything lies. Draws the picture where there is something to draw."""
    return "\n".join(("", *_failures(outcome), *_result(outcome, folder), *_places(outcome, folder)))


def _failures(outcome: Outcome) -> Iterator[str]:
    """The last words of those that failed and were not replaced; those that say the same share a block."""
    attempts = outcome.job.status.attempts
    last = {(member.role, member.index): member for member in outcome.ended if _at_fault(member)}
    blocks: dict[str, list[Member]] = {}
    for (role, index), member in sorted(last.items()):
        attempt = attempts.get(str(index) if role is Role.PARTICLE else role)
        if attempt is None or attempt.incarnation > member.incarnation:
            continue
        blocks.setdefault(member.message.rpartition("\n")[2] or member.reason, []).append(member)
    for members in blocks.values():
        yield f"{', '.join(map(_name, members))} ended with {_ending(members[-1])}:"
        yield from (f"    {line}" for line in plain(members[-1].message).splitlines() or ["(it printed nothing)"])
        yield ""


def _result(outcome: Outcome, folder: RunFolder) -> Iterator[str]:
    status = outcome.job.status
    failed = status.condition("Failed")
    if failed is not None and failed.status == "True":
        # Its further lines are the last words of a member, and stand above.
        yield f"{failed.reason}: {failed.message.partition(chr(10))[0].rstrip(':')}"
    state = str(status.state) if outcome.signal is None else "stopped before its end"
    parts = [f"{outcome.job.metadata.name}: {state} after {duration(outcome.seconds)}"]
    parts.append(number_of(status.training.round, "round"))
    if status.training.best_loss is not None:
        parts.append(f"best loss {loss_text(status.training.best_loss)}")
    yield ", ".join(parts)
    center = next((entry for entry in reversed(read(folder.metrics).metrics) if entry.of == "center"), None)
    if center is not None:
        known = (f"{name} {value:.4g}" for name, value in center.values.items() if value is not None)
        yield f"center: {', '.join(known)}"
    for kill in outcome.spared:
        yield f"--kill {kill.target}@{kill.percent}% never came: progress did not get there"


def _places(outcome: Outcome, folder: RunFolder) -> Iterator[str]:
    if folder.model.exists():
        yield f"model    {folder.shown(folder.model)}"
    else:
        yield "model    none was written"
    picture = _picture(outcome, folder)
    if picture is not None:
        yield f"picture  {folder.shown(picture)}"
    yield f"logs     {folder.shown(folder.logs)}"
    if not outcome.complete and folder.resumable:
        yield f"resume   swarm run --resume {shlex.quote(folder.shown())}"


def _picture(outcome: Outcome, folder: RunFolder) -> Path | None:
    if not folder.metrics.exists():
        return None
    from swarm_operator.page.picture import draw

    try:
        return draw(folder.path, job=outcome.job.metadata.name)
    except Exception:
        log.exception("no picture")  # whatever it was, the training is not to be called failed for it
        return None


def _at_fault(member: Member) -> bool:
    return bool(member.exit_code) and not member.deleting and not member.disrupted


def _name(member: Member) -> str:
    return "synchronizer" if member.role is Role.SYNCHRONIZER else f"particle {member.index}"


def _ending(member: Member) -> str:
    code = member.exit_code or 0
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
