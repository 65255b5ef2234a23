"""What a particle and the synchronizer say to each other, after the handshake.

Particle                                Synchronizer
Attach {schema, pending, ...}   ->
                                <-      SendState            only to the one whose weights become the center,
State (+ tensors on the link)   ->                           or to all when a restarted synchronizer has none
                                <-      Welcome (+ tensors)  action Adopt; or Keep, and the Reply to `pending` again
Push (+ tensors)                ->
                                <-      Reply (+ tensors)    Merged, Held, Refused or Forgotten
Lease                           ->                           units of work for a pass over the data
                                <-      Leased               at once; without any, the pass is over
Skip                            ->                           the script left the pass early
Release                         ->                           the steps of some units are lost
FetchCenter                     ->
                                <-      Center (+ tensors)
FetchDonation                   ->                           a newcomer, where the Welcome says so
                                <-      Donate               to one of the others: the donor
Donation (+ tensors)            ->
                                <-      Donation (+ tensors) to the newcomer, from the donor, or with a problem
Heartbeat, Metrics              ->
Goodbye                         ->                           finished, or not
                                <-      Farewell             to one that has finished
                                <-      Alive, Stop

A message that announces tensors is followed by exactly those on the link, in that order. Vectors named `buffers`
and `integers` are the model's own, those of a donation are bytes; all others have the exchange vector's size and
dtype.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from swarm_api.settings import Settings
from swarm_trainer.wire.units import Span, Stream, Units, Work


class _Message(BaseModel):
    # Fitness may be NaN, and the answer to that is the algorithm's, not the wire's.
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants", frozen=True)


class Progress(BaseModel):
    """Where a particle is; rides on most messages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int = 0
    """Optimizer steps, counting those of earlier incarnations up to the last committed push."""
    samples: int = 0
    """Samples trained, counted likewise."""
    epoch: int = 0
    """Of the swarm's epochs, from 0."""
    fraction: float = 0.0
    """0..1 of all announced epochs."""


class Attach(_Message):
    """The first word after the handshake."""

    kind: Literal["attach"] = "attach"
    model: dict[str, Any]
    """The weights' schema."""
    returning: bool
    """It already trains in this swarm and keeps its weights; else it is new and adopts the center."""
    round: int = 0
    """Last round whose reply it applied."""
    pending: int | None = None
    """Sequence of a push that left and whose reply has not come: the welcome says what became of it."""
    progress: Progress = Progress()
    work: Work = Work()
    """Of one that returns."""


class State(_Message):
    """Answers SendState."""

    kind: Literal["state"] = "state"
    tensors: tuple[str, ...]


class Push(_Message):
    """One contribution."""

    kind: Literal["push"] = "push"
    sequence: Annotated[int, Field(ge=1)]
    """Counts the pushes of this incarnation from 1. One that was answered is never merged again."""
    generation: int
    """Of the settings it was made under; it is merged under no others."""
    fitness: float | None
    """Mean loss since the last exchange; None: none was reported."""
    standard_error: float = 0.0
    new_samples: int = 0
    """Since the last committed push."""
    numbers: dict[str, float] = Field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    progress: Progress
    units: tuple[Units, ...] = ()
    """Trained since the last committed push, as far as batches are leased."""


class Lease(_Message):
    """Asks for units of work; answered by Leased."""

    kind: Literal["lease"] = "lease"
    stream: Stream
    """The pass that it makes."""
    count: int = Field(ge=1)
    calls: tuple[Span, ...]
    """Numbers of its calls of `batches` with the same loader: it can train what they left in earlier streams."""


class Skip(_Message):
    """The script left its loop over a stream."""

    kind: Literal["skip"] = "skip"
    stream: Stream
    units: tuple[Units, ...]
    """Leased for this pass, and not trained."""


class Release(_Message):
    """Units whose training is in no weights any more: they are free for anybody."""

    kind: Literal["release"] = "release"
    units: tuple[Units, ...]


class FetchCenter(_Message):
    """Asks for the center as it is now."""

    kind: Literal["fetch"] = "fetch"


class FetchDonation(_Message):
    """A newcomer asks for a live particle's optimizer and registered state."""

    kind: Literal["fetch-donation"] = "fetch-donation"


class Part(BaseModel):
    """One optimizer, or one thing that the script registered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    fits: tuple[str, ...] = ()
    """What a receiver's own must be the same in: each the end of a sentence that begins with "it has"."""
    tree: str = ""
    """See `wire.tree`; the synchronizer passes it on unread."""
    nbytes: Annotated[int, Field(ge=0)] = 0
    """Of the tree's tensors, which travel as one vector of bytes; 0: nothing travels."""
    problem: str = ""
    """Why it cannot travel."""


class Donation(_Message):
    """Answers Donate, and FetchDonation."""

    kind: Literal["donation"] = "donation"
    donor: int | None = None
    """Index of the particle it is from."""
    parts: tuple[Part, ...] = ()
    problem: str = ""
    """Why there are no parts."""

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the parts that come with bytes."""
        return tuple(part.name for part in self.parts if part.nbytes)


class Heartbeat(_Message):
    """Sent every heartbeatSeconds; answered by Alive."""

    kind: Literal["heartbeat"] = "heartbeat"
    progress: Progress


class Metrics(_Message):
    """Figures that the script reported."""

    kind: Literal["metrics"] = "metrics"
    of: Literal["particle", "center"]
    values: dict[str, float]


class Goodbye(_Message):
    """The particle leaves on its own; finished: it trained to its end, which one that fails afterwards takes back."""

    kind: Literal["goodbye"] = "goodbye"
    finished: bool
    progress: Progress


FromParticleMessage = (
    Attach
    | State
    | Push
    | Lease
    | Skip
    | Release
    | FetchCenter
    | FetchDonation
    | Donation
    | Heartbeat
    | Metrics
    | Goodbye
)


class FromParticle(RootModel[FromParticleMessage]):
    """Anything a particle may say."""

    root: Annotated[FromParticleMessage, Field(discriminator="kind")]


class Action(StrEnum):
    """What an attaching particle does with its weights."""

    ADOPT = "Adopt"
    KEEP = "Keep"


class SendState(_Message):
    """Asks for all weights and buffers of the particle as they are."""

    kind: Literal["send-state"] = "send-state"


class ReplyStatus(StrEnum):
    """What became of a push."""

    MERGED = "Merged"
    HELD = "Held"
    """Fewer than minReplicas are there, or the settings changed: it was not merged, train on."""
    REFUSED = "Refused"
    """Not finite: it was not merged, and the tensors are the center to adopt."""
    FORGOTTEN = "Forgotten"
    """It was merged, and a synchronizer that is gone took the reply along: there is nothing to apply."""


class Reply(_Message):
    """The answer to a push."""

    kind: Literal["reply"] = "reply"
    sequence: int
    status: ReplyStatus
    round: int
    leader: int
    replicas: int
    """Among whom the data is shared out from the next epoch on."""
    settings: Settings | None = None
    """New ones, with Held: take them, and push again."""
    numbers: dict[str, float] = Field(default_factory=dict)
    tensors: tuple[str, ...] = ()


class Welcome(_Message):
    """The particle is a member now."""

    kind: Literal["welcome"] = "welcome"
    action: Action
    tensors: tuple[str, ...] = ()
    """Of a newcomer; those of `reply` are announced there."""
    settings: Settings
    reply: Reply | None = None
    """To the pending push, as it was or would have been; None: that push was not merged and never will be."""
    round: int
    leader: int
    """Lowest index attached: the one that evaluates the center."""
    progress: Progress
    """Where the newcomer starts: the swarm's epoch, its own index's step and samples."""
    inherits: bool = False
    """Others have trained before: ask for a donation."""
    revoked: tuple[Units, ...] = ()
    """Of a returning one's untrained units: others have them."""


class Leased(_Message):
    """Answers Lease."""

    kind: Literal["leased"] = "leased"
    stream: Stream
    units: tuple[Units, ...]
    """None: nothing is left for this pass."""


class Center(_Message):
    """Answers FetchCenter."""

    kind: Literal["center"] = "center"
    round: int
    tensors: tuple[str, ...]


class Donate(_Message):
    """Asks for optimizer and registered state, for a newcomer."""

    kind: Literal["donate"] = "donate"


class Alive(_Message):
    """Answers Heartbeat, and comes unasked while the particle's messages wait to be read."""

    kind: Literal["alive"] = "alive"


class Farewell(_Message):
    """Answers a Goodbye that says finished: it is known."""

    kind: Literal["farewell"] = "farewell"


class Stop(_Message):
    """The training cannot go on."""

    kind: Literal["stop"] = "stop"
    message: str


FromSynchronizerMessage = SendState | Welcome | Reply | Leased | Center | Donate | Donation | Alive | Farewell | Stop


class FromSynchronizer(RootModel[FromSynchronizerMessage]):
    """Anything a synchronizer may say."""

    root: Annotated[FromSynchronizerMessage, Field(discriminator="kind")]
