"""What happened, in a user's words."""

import signal
from collections.abc import Sequence
from typing import Final

from swarm_operator.plan.ends import Reason
from swarm_operator.plan.facts import Phase, Role
from swarm_operator.plan.lineage import Lineage
from swarm_operator.plan.view import View

NAMED: Final = 3
"""Particles that one message names; the others are counted."""
TAIL: Final = 1500
"""Characters kept of a child's last output."""
_SPANS: Final = {60: "a minute", 3600: "an hour", 86_400: "a day", 604_800: "a week"}
_ORDINALS: Final = {1: "first", 2: "second", 3: "third"}
_SIGNALS: Final = {member.value: member.name for member in signal.Signals}


def count(amount: int, thing: str, things: str = "") -> str:
    """1 particle, 2 particles."""
    return f"{amount} {thing if amount == 1 else things or f'{thing}s'}"


def be(amount: int) -> str:
    """Is, or are."""
    return "is" if amount == 1 else "are"


def span(window: int) -> str:
    """An hour, or 120 s."""
    return _SPANS.get(window, f"{window} s")


def ordinal(number: int) -> str:
    """First, second, third, 4th."""
    return _ORDINALS.get(number, f"{number}th")


def ending(each: Lineage) -> str:
    """How the newest incarnation ended, as the rest of a sentence: failed with exit code 1 (OOMKilled)."""
    code, reason = each.attempt.last_exit_code, each.attempt.last_reason
    match reason:
        case Reason.COMPLETED:
            return "finished"
        case Reason.UNRESPONSIVE:
            return "fell silent and was killed"
        case Reason.EXITED_EARLY:
            return "ended before the swarm finished (exit code 0)"
        case Reason.DELETED:
            return "was removed by others"
        case Reason.SUSPENDED:
            return "was suspended"
        case Reason.SCALED_DOWN:
            return "was no longer wanted"
    if code is None:
        return f"was lost ({reason})" if reason else "was lost"
    how = f"was killed by {_SIGNALS.get(-code, f'signal {-code}')}" if code < 0 else f"failed with exit code {code}"
    return how if reason in ("", Reason.ERROR, Reason.KILLED, "Completed") else f"{how} ({reason})"


def budget_spent(view: View, each: Lineage) -> str:
    """Why this one is given up."""
    amount = len(each.attempt.failures)
    if amount < 2:
        return f"{each.who} {ending(each)} and maxFailuresPerParticle is 0"
    return f"{each.who} failed {amount} times in {_window(view)}, the last time it {ending(each)}"


def last_words(each: Lineage) -> str:
    """The end of its output on lines of their own, where it is known."""
    said = output(each)
    return f":\n{said}" if said else ""


def output(each: Lineage) -> str:
    """The end of what the newest incarnation said before it ended."""
    return each.newest.message.strip()[-TAIL:] if each.newest and each.newest.ended_phase else ""


def trouble(view: View, each: Lineage) -> str:
    """Why this one does not train now, and what comes next."""
    attempt, newest = each.attempt, each.newest
    if attempt.quarantined:
        return f"{each.who} is given up: {budget_spent(view, each).removeprefix(each.who).strip()}"
    if each.over:
        told = f"{each.who} {ending(each)}{_again(view, each)}"
        if not each.replaceable:
            return told
        return f"{told}, next start after {max(1, round(each.pause))} s" if each.pause else f"{told} and starts again"
    if newest is None:
        return f"{each.who} is about to start"
    if newest.ended_phase:
        return f"{each.who} ended with exit code 0"
    if newest.phase is Phase.PENDING:
        why = ": ".join(part for part in (newest.reason, newest.message.strip()) if part)
        return f"{each.who} waits: {why}" if why else f"{each.who} waits to be started"
    if attempt.contributed:
        return f"{each.who} runs, but the synchronizer has lost it"
    return f"{each.who} starts" if attempt.incarnation == 1 else f"{each.who} starts again"


def troubles(view: View, lineages: Sequence[Lineage]) -> str:
    """The same for several, the gravest first; those that say the same are put together."""
    ranked = sorted(lineages, key=lambda each: (not each.attempt.quarantined, not each.over, each.index))
    told: dict[tuple[Role, str], list[Lineage]] = {}
    for each in ranked:
        sentence = trouble(view, each)
        told.setdefault((each.role, sentence.removeprefix(each.who)), []).append(each)
    shown = [f"{_names(group)}{rest}" for (_, rest), group in list(told.items())[:NAMED]]
    more = sum(len(group) for group in list(told.values())[NAMED:])
    message = "; ".join([*shown, f"and {more} more"] if more else shown)
    spoken = next((each for each in ranked if each.attempt.quarantined and last_words(each)), None)
    return f"{message}\nLast output of {spoken.who}{last_words(spoken)}" if spoken else message


def _again(view: View, each: Lineage) -> str:
    """How often it failed by now, where this end was a failure and not the first."""
    failures = each.attempt.failures
    if len(failures) < 2 or failures[-1] != each.attempt.ended_at:
        return ""
    return f" ({ordinal(len(failures))} time in {_window(view)})"


def _window(view: View) -> str:
    return span(view.job.spec.particles.failure_policy.window_seconds)


def _names(group: Sequence[Lineage]) -> str:
    """Particle 2, particles 0, 1 and 3, or 7 particles."""
    if len(group) == 1:
        return group[0].who
    if len(group) > 2 * NAMED:
        return f"each of {len(group)} particles"
    numbers = [str(each.index) for each in group]
    return f"each of the particles {', '.join(numbers[:-1])} and {numbers[-1]}"
