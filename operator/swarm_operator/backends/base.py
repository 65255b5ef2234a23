"""The interface between the plan and a place where processes run."""

from collections.abc import Sequence
from typing import Protocol

from swarm_api.job import SwarmTrainingJob
from swarm_operator.plan.actions import Action
from swarm_operator.plan.facts import Observed


class Backend(Protocol):
    """One job's children in one place."""

    async def observe(self, job: SwarmTrainingJob) -> Observed:
        """Everything known of the job's children now, and the synchronizer's report."""
        ...

    async def apply(self, job: SwarmTrainingJob, actions: Sequence[Action]) -> None:
        """Carry out, several at once; an action that was already carried out is no error."""
        ...
