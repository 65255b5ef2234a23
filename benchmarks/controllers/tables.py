"""What was measured, beside its bars and beside what the peers' controllers did on another day."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

from contenders import BARE, KOPF, NAMES, OURS
from measures import Bulk, Idle

P50_BAR: Final = 2.0
"""Times the bare client's."""
P99_BAR: Final = 3.0
"""Times the smallest kopf operator's."""
RATE_BAR: Final = 0.7
"""Of the smallest kopf operator's."""
MEBIBYTES_BAR: Final = 150

_PEERS: Final = {
    "bare asyncio client": (9.8, 36.0, 465),
    "smallest kopf operator": (11.8, 17.5, 190),
    "Kubeflow training-operator v1.9, limits raised": (37.0, 62.0, 77),
    "the same with stock limits": (38.0, 60.0, 21),
    "batch/v1 Indexed Job, limits raised": (10_361.0, 10_814.0, 211),
    "JobSet v0.12, one Job of N": (1_638.0, 2_197.0, 97),
    "JobSet v0.12, N Jobs of one": (1_114.0, 1_156.0, 28),
}
"""p50 and p99 of a reaction in milliseconds, and pods a second of a job of 1,000: one run on a machine like this."""


def reaction_table(taken: Mapping[str, Sequence[float]]) -> str:
    """Milliseconds and ratios."""
    p50, p99 = ({name: percentile(each, share) for name, each in taken.items()} for share in (50, 99))
    lines = [
        f"| pod failed → replacement exists, {len(taken[OURS])} each, interleaved | p50 ms | p99 ms "
        "| p50 / bare client's | p99 / smallest kopf operator's |",
        "|---|---|---|---|---|",
    ]
    for name in taken:
        middle, tail = p50[name] / p50[BARE], p99[name] / p99[KOPF]
        line = f"| {NAMES[name]} | {1000 * p50[name]:.1f} | {1000 * p99[name]:.1f} |"
        if name == OURS:
            lines.append(f"{line} {_judged(middle, P50_BAR)} | {_judged(tail, P99_BAR)} |")
        else:
            lines.append(f"{line} {middle:.2f} | {tail:.2f} |")
    return "\n".join(lines)


def bulk_table(taken: Mapping[str, Sequence[Bulk]], replicas: int) -> str:
    """Medians with quartiles; ratios are of the same round."""
    lines = [
        f"| job of {replicas} particles → all pods exist, {len(taken[OURS])} rounds, interleaved | s | pods/s "
        "| rate / smallest kopf operator's, per pair | CPU s until all run |",
        "|---|---|---|---|---|",
    ]
    for name, own in taken.items():
        seconds = [each.seconds for each in own]
        ratios = [base.seconds / each.seconds for base, each in zip(taken[KOPF], own, strict=True)]
        told = _spread(ratios)
        if name == OURS:
            told += f", bar ≥ {RATE_BAR}: {_verdict(statistics.median(ratios) >= RATE_BAR)}"
        rate = replicas / statistics.median(seconds)
        cpu = _spread([each.cpu_seconds for each in own])
        lines.append(f"| {NAMES[name]} | {_spread(seconds)} | {rate:.0f} | {told} | {cpu} |")
    return "\n".join(lines)


def idle_table(found: Mapping[str, Idle], peaks: Mapping[str, float], jobs: int, seconds: float) -> str:
    """Requests, CPU and memory."""
    lines = [
        f"| {jobs} running jobs, nothing happens for {seconds:.0f} s | writes | other requests | CPU, % of a core "
        "| RSS MiB | at the most, 1,000 pods included |",
        "|---|---|---|---|---|---|",
    ]
    for name, each in found.items():
        writes, rss = str(each.writes), f"{each.mebibytes:.0f}"
        if name == OURS:
            writes += f", bar 0: {_verdict(each.writes == 0)}"
            rss += f", bar ≤ {MEBIBYTES_BAR}: {_verdict(each.mebibytes <= MEBIBYTES_BAR)}"
        lines.append(
            f"| {NAMES[name]} | {writes} | {each.reads} | {each.cpu_percent:.1f} | {rss} | {peaks[name]:.0f} |"
        )
    return "\n".join(lines)


def peer_table(reaction: Mapping[str, Sequence[float]], bulk: Mapping[str, Sequence[Bulk]]) -> str:
    """Ratios, since the machine and the day differ."""
    (_, _, _), (_, kopf_p99, kopf_rate) = list(_PEERS.values())[:2]
    bare_p50 = next(iter(_PEERS.values()))[0]
    rows = {
        name: (p50 / bare_p50, p99 / kopf_p99, rate / kopf_rate) for name, (p50, p99, rate) in list(_PEERS.items())[2:]
    }
    ratios = [base.seconds / each.seconds for base, each in zip(bulk[KOPF], bulk[OURS], strict=True)]
    ours = (
        percentile(reaction[OURS], 50) / percentile(reaction[BARE], 50),
        percentile(reaction[OURS], 99) / percentile(reaction[KOPF], 99),
        statistics.median(ratios),
    )
    lines = [
        "| beside the peers, each against the two simple programs of its own run "
        "| p50 / bare client's | p99 / smallest kopf operator's | pods/s / smallest kopf operator's |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {p50:.2f} | {p99:.2f} | {rate:.2f} |"
        for name, (p50, p99, rate) in {NAMES[OURS]: ours, **rows}.items()
    ]
    return "\n".join(lines)


def percentile(values: Sequence[float], share: int) -> float:
    """The value that so many of a hundred do not exceed."""
    return statistics.quantiles(values, n=100, method="inclusive")[share - 1]


def _judged(ratio: float, bar: float) -> str:
    return f"{ratio:.2f}, bar ≤ {bar:g}: {_verdict(ratio <= bar)}"


def _verdict(held: bool) -> str:
    return "held" if held else "**missed**"


def _spread(values: Sequence[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:.2f} ({low:.2f}..{high:.2f})"
