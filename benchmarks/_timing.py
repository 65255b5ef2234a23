"""Interleaved timing: contenders take turns, so that a noisy minute hits them all, and pairs of one round compare."""

import statistics
from collections.abc import Callable, Mapping, Sequence


def interleaved(contenders: Mapping[str, Callable[[], float]], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
    """Seconds of each contender in each round; every function returns the seconds that it took."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(warm_up + rounds):
        for name, measure in contenders.items():
            taken = measure()
            if number >= warm_up:
                seconds[name].append(taken)
    return seconds


def spread(values: Sequence[float], digits: int) -> str:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.{digits}f} ({low:.{digits}f}..{high:.{digits}f})"


def table(title: str, seconds: Mapping[str, Sequence[float]], bytes_moved: int, reference: str) -> str:
    """One line each: milliseconds, MB/s, and speed relative to the reference in the same round."""
    lines = [
        f"| {title} | ms | MB/s | speed / {reference}, per pair |",
        "|---|---|---|---|",
    ]
    for name, taken in seconds.items():
        ratios = [base / own for base, own in zip(seconds[reference], taken, strict=True)]
        milliseconds = [1000 * value for value in taken]
        rate = bytes_moved / statistics.median(taken) / 1e6
        lines.append(f"| {name} | {spread(milliseconds, 1)} | {rate:.0f} | {spread(ratios, 2)} |")
    return "\n".join(lines)
