"""What can go wrong when a cluster is made."""

from collections.abc import Sequence


class UnavailableError(Exception):
    """No cluster can be had on this machine; the message says what is missing and what to do.

    The test suite leaves out what needs a cluster and says so in one line.
    """


class CommandError(Exception):
    """A program ended with an error."""

    def __init__(self, command: Sequence[str], status: int, output: str) -> None:
        self.status = status
        self.output = output
        words = " ".join(command)
        shown = words if len(words) < 300 else words[:300] + " ..."
        super().__init__(f"{shown} ended with {status}:\n{output.rstrip()}")
