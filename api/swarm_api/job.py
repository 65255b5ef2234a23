"""The custom resource `SwarmTrainingJob`: metadata and spec. Its status is in `status`."""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from swarm_api.algorithm import Algorithm
from swarm_api.base import Model
from swarm_api.names import API_VERSION, KIND, MAX_JOB_NAME
from swarm_api.status import JobStatus
from swarm_api.storage import Checkpoint, Output
from swarm_api.template import RESTART_POLICY, DeclaredAs, PodSpec


class Link(StrEnum):
    """Which torch.distributed backend carries the tensors."""

    SWARM = "Swarm"
    GLOO = "Gloo"


class Sync(Model):
    """When a round commits, and who is waited for."""

    link: Link = Link.SWARM
    quorum: (
        Annotated[int, Field(ge=1, le=1024)] | Annotated[str, Field(max_length=4, pattern=r"^(100|[1-9]?[0-9])%$")]
    ) = "50%"
    """Members that must have delivered before a round may close without the others: a number or a percentage."""
    grace_milliseconds: Annotated[int, Field(ge=0, le=600_000)] | None = None
    """How long a round that has its quorum waits for the rest; unset: twice the usual spread, 200 at least."""
    deadline_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """After this long a round commits with minReplicas, quorum or not."""
    heartbeat_seconds: Annotated[int, Field(ge=1, le=60)] = 1
    """How often a particle tells that it lives."""
    unresponsive_seconds: Annotated[int, Field(ge=5, le=86_400)] = 60
    """A particle that has attached and then is silent for so long is killed and replaced."""
    start_grace_seconds: Annotated[int, Field(ge=0, le=3600)] = 60
    """How long the first round waits for all replicas to attach before it starts with minReplicas."""
    max_detached_steps: Annotated[int, Field(ge=1, le=100_000_000)] = 10_000
    """Steps a particle may take without a commit before it pauses."""

    def quorum_of(self, members: int) -> int:
        """The number of deliveries that `members` at the opening of a round need; at least 1."""
        if isinstance(self.quorum, int):
            return max(1, min(self.quorum, members))
        share = int(self.quorum.removesuffix("%"))
        return max(1, -(-share * members // 100))


class FailurePolicy(Model):
    """How many failures of its own a particle may have before it is given up."""

    max_failures_per_particle: Annotated[int, Field(ge=0, le=100)] = 3
    """One more inside the window, and the particle is given up."""
    window_seconds: Annotated[int, Field(ge=1, le=604_800)] = 3600
    """Only failures this recent count."""


class OptimizerState(StrEnum):
    """Where the optimizer's and the registered state of a particle come from that joins a swarm in training."""

    PEER = "Peer"
    """From a live particle."""
    FRESH = "Fresh"
    """It begins anew, as where particles differ in their hyper-parameters."""


class Join(Model):
    """What a particle starts from that joins a swarm in training, besides the center."""

    optimizer_state: OptimizerState = OptimizerState.PEER
    """Peer: optimizer and registered state of a live particle, hyper-parameters included. Fresh: its own."""


class PodTemplate(Model):
    """A pod template, kept as it is: metadata and spec are Kubernetes' own."""

    metadata: dict[str, Any] = Field(default_factory=dict)
    """Labels and annotations of the pods."""
    spec: Annotated[dict[str, Any], DeclaredAs(PodSpec)]
    """A pod's spec."""

    @model_validator(mode="after")
    def the_operators_own_is_left_out(self) -> Self:
        """Refuse what the operator sets itself, in every pod it makes."""
        if self.spec.get("restartPolicy") not in (None, "Never"):
            raise ValueError(f"spec.restartPolicy is {self.spec['restartPolicy']}: {RESTART_POLICY}")
        for field in ("hostname", "subdomain"):
            if self.spec.get(field) is not None:
                raise ValueError(f"spec.{field} is set by the operator: remove it")
        return self


class Particles(Model):
    """The replicas, and how they are started and replaced."""

    replicas: Annotated[int, Field(ge=1, le=1024)] = 2
    """How many particles train; `kubectl scale` changes it."""
    min_replicas: Annotated[int, Field(ge=1, le=1024)] = 1
    """The floor: at or above it the swarm trains (Degraded), below it nothing commits (Waiting)."""
    max_replicas: Annotated[int, Field(ge=1, le=1024)] | None = None
    """The ceiling of replicas; unset: none."""
    failure_policy: FailurePolicy = FailurePolicy()
    join: Join = Join()
    template: PodTemplate
    """What a particle runs."""

    @model_validator(mode="after")
    def bounds_hold(self) -> Self:
        """MinReplicas <= replicas <= maxReplicas."""
        if self.min_replicas > self.replicas:
            msg = f"minReplicas {self.min_replicas} exceeds replicas {self.replicas}: lower it or raise replicas"
            raise ValueError(msg)
        if self.max_replicas is not None and self.replicas > self.max_replicas:
            msg = f"replicas {self.replicas} exceeds maxReplicas {self.max_replicas}: lower it or raise maxReplicas"
            raise ValueError(msg)
        return self


class Synchronizer(Model):
    """The process that holds the center."""

    template: PodTemplate | None = None
    """Unset: the particles' image, pull policy, pull secrets and security contexts, and nothing else of their template:
    no GPUs, variables, volumes, tolerations or node selector. It requests 250m of a CPU and 1Gi of memory and has no
    limits. It needs about 3 + replicas times the model's memory: for a large one set a template that requests it."""
    checkpoint: Checkpoint | None = None
    """Where checkpoints go. When every pod was lost, the training goes on from the newest; unset: it begins anew. The
    pod must be allowed to write to the volume, as for output."""
    output: Output | None = None
    """Where the trained model goes, as model.safetensors. With neither this nor checkpoint, nothing is kept: condition
    NothingKept. The pod must be allowed to write to the volume: set securityContext.fsGroup in the template's spec,
    for the trainer image 65532."""


class Spec(Model):
    """What the user asks for."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Particle i's own seed is a fixed function of (seed, i)."""
    algorithm: Algorithm
    sync: Sync = Sync()
    particles: Particles
    synchronizer: Synchronizer = Synchronizer()
    suspend: bool = False
    """True: all pods are removed; the name, the status and the output stay."""


class Metadata(Model):
    """The part of Kubernetes' ObjectMeta that is read; the rest is carried along."""

    model_config = ConfigDict(**{**Model.model_config, "extra": "allow"})

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1

    @field_validator("name")
    @classmethod
    def name_is_a_dns_label(cls, name: str) -> str:
        """RFC 1035, and short enough that children's names stay labels."""
        letters = name.replace("-", "a")
        proper = letters.isascii() and letters.isalnum() and letters == letters.lower()
        if not (proper and name[0].isalpha() and name[-1] != "-" and len(name) <= MAX_JOB_NAME):
            msg = (
                f"{name!r} must start with a letter, hold only a-z, 0-9 and '-', not end in '-', "
                f"and have at most {MAX_JOB_NAME} characters"
            )
            raise ValueError(msg)
        return name


class SwarmTrainingJob(Model):
    """One training by a swarm."""

    api_version: Literal["swarm.training/v1alpha1"] = API_VERSION  # type: ignore[assignment]
    kind: Literal["SwarmTrainingJob"] = KIND  # type: ignore[assignment]
    metadata: Metadata
    spec: Spec
    status: JobStatus = Field(default_factory=JobStatus)
