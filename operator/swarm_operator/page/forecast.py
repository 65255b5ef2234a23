"""When a training will be done, judged by how its percentage moved lately."""

_MARKS = 12
"""Changes of the percentage that count: old ones say nothing of a swarm that grew, shrank or waited since."""


class Forecast:
    """Remembers when the percentage changed. Start-up does not count: it begins with the first percent."""

    def __init__(self) -> None:
        self._marks: tuple[tuple[float, int], ...] = ()

    def observe(self, percent: int, now: float) -> None:
        """The progress, 0..100, at `now` in seconds of any clock; one that falls starts the count anew."""
        kept = self._marks if not self._marks or percent >= self._marks[-1][1] else ()
        if percent > 0 and (not kept or percent > kept[-1][1]):
            kept = (*kept, (now, percent))
        self._marks = kept[-_MARKS:]

    def remaining(self, now: float) -> float | None:
        """Seconds until 100 percent; None before two changes were seen. Another thread may ask."""
        marks = self._marks
        if len(marks) < 2:
            return None
        (first_time, first), (last_time, last) = marks[0], marks[-1]
        pace = (last_time - first_time) / (last - first)
        overdue = max(0, 99 - last) * pace
        return max(overdue, (100 - last) * pace - (now - last_time), 0.0)
