"""Interleaved timing: contenders take turns, so that a noisy minute hits them all, and pairs of one round compare."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple


class Taken(NamedTuple):
    """What one measurement took."""

    seconds: float
    cpu_seconds: float
    """Of all processes that took part; other people's load hardly changes it."""


def interleaved(contenders: Mapping[str, Callable[[], Taken]], rounds: int, warm_up: int = 2) -> dict[str, list[Taken]]:
    """What each contender took in each round."""
    taken: dict[str, list[Taken]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, measure in contenders.items():
            one = measure()
            if number >= warm_up:
                taken[name].append(one)
    return taken


def spread(values: Sequence[float], digits: int) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def table(title: str, taken: Mapping[str, Sequence[Taken]], bytes_moved: int, reference: str) -> str:
    """One line each; the speeds are relative to the reference in the same round."""
    lines = [
        f"| {title} | ms | MB/s | speed / {reference}, per pair | CPU ms, all processes |",
        "|---|---|---|---|---|",
    ]
    for name, own in taken.items():
        ratios = [base.seconds / one.seconds for base, one in zip(taken[reference], own, strict=True)]
        milliseconds = spread([1000 * one.seconds for one in own], 0)
        rate = bytes_moved / statistics.median(one.seconds for one in own) / 1e6
        cpu = spread([1000 * one.cpu_seconds for one in own], 0)
        lines.append(f"| {name} | {milliseconds} | {rate:.0f} | {spread(ratios, 2)} | {cpu} |")
    return "\n".join(lines)
