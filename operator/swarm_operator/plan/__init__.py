"""What should happen next to a job: pure functions over what was observed, with no clock of their own."""

from swarm_operator.plan.planning import plan
from swarm_operator.plan.writing import worth_writing

__all__ = ["plan", "worth_writing"]
