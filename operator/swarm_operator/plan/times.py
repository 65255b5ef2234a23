"""Times in a status are RFC 3339 in UTC with microseconds; everywhere else they are Unix seconds."""

from datetime import UTC, datetime


def stamp(when: float) -> str:
    """`2026-03-01T12:00:00.250000Z` for Unix seconds, to the microsecond."""
    seconds, microseconds = divmod(int(when * 1_000_000), 1_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=microseconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z"


def unix(text: str) -> float:
    """Unix seconds of an RFC 3339 time, with or without a fraction.

    Raises:
        ValueError: the text is none.
    """
    return datetime.fromisoformat(text).timestamp()
