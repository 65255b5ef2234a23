"""Names that users' manifests and both halves rely on."""

GROUP = "swarm.training"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "SwarmTrainingJob"
PLURAL = "swarmtrainingjobs"
SHORT_NAME = "stj"

TRAINER_CONTAINER = "trainer"
"""The container whose end decides, where a template has more than one."""

MAX_JOB_NAME = 40
"""Children's names append a role, an index and an incarnation; host names and labels are cut at 63."""


def particle_name(job: str, index: int, incarnation: int) -> str:
    """Name of the particle's pod or process; unique over the life of the job."""
    return f"{job}-particle-{index}-{incarnation}"


def synchronizer_name(job: str, incarnation: int) -> str:
    """Name of the synchronizer's pod or process; unique over the life of the job."""
    return f"{job}-synchronizer-{incarnation}"
