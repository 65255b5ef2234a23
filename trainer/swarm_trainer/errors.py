"""What can go wrong in a particle or a synchronizer.

SwarmError
├── NotInSwarmError        something needs a swarm and the script runs alone
├── NoFitnessError         the algorithm needs losses and nobody reported one; names the line to add
├── UnsupportedModelError  the model, optimizer or settings cannot be exchanged; says what to change
├── RefusedError           the synchronizer will not have this particle (fenced, another job, another model)
└── LinkError              a connection broke, was cancelled, or brought something unexpected
    └── LinkTimeoutError   no progress within the time allowed
"""


class SwarmError(Exception):
    """Base of all errors raised here."""


class NotInSwarmError(SwarmError):
    """Something needs a swarm and the script runs alone."""


class NoFitnessError(SwarmError):
    """The algorithm needs losses and none of a round's particles reported a finite one."""


class UnsupportedModelError(SwarmError):
    """The model, the optimizer or the settings cannot be exchanged; the message says what to change."""


class RefusedError(SwarmError):
    """The synchronizer will not have this particle. Trying again will not help."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """One CamelCase word: Fenced, WrongJob, ProtocolVersion, Stopped."""


class LinkError(SwarmError):
    """A connection broke, was cancelled, or brought something unexpected. Reconnecting may help."""


class LinkTimeoutError(LinkError):
    """No byte moved within the time allowed."""
