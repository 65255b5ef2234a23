"""What goes on being wrong is said when it begins, and not at every try and every event."""

import logging

from swarm_operator.backends.kubernetes.client import ApiError


class Complaint:
    """About one thing that may be wrong for a while."""

    def __init__(self, log: logging.Logger, who: str) -> None:
        """`who` stands at the beginning of each line."""
        self._log = log
        self._who = who
        self._last = ""

    def make(self, error: Exception, what: str) -> None:
        """Say what is wrong and what follows, unless it is wrong as before; a bug comes with its traceback.

        In a namespace that is going nothing can be made, and nobody has to do anything about it.
        """
        expected = isinstance(error, ApiError)
        told = f"{type(error).__name__}: {error}"
        level = logging.WARNING if expected else logging.ERROR
        if told == self._last or (isinstance(error, ApiError) and error.homeless):
            level = logging.DEBUG
        else:
            self._last = told
        self._log.log(level, "%s: %s; %s", self._who, error, what, exc_info=None if expected else error)

    def settle(self) -> None:
        """It went well."""
        if self._last:
            self._log.info("%s: it works again", self._who)
        self._last = ""
