"""What happens to a particle's pod, and that it happens to no other."""

import time

import pytest

from e2e.kube import until
from e2e.swarms import Swarm


@pytest.mark.core
def test_a_killed_process_is_replaced_and_the_others_train_on(swarm: Swarm) -> None:
    swarm.start(replicas=2)
    swarm.trains(_0=1, _1=1)
    others = swarm.lives()
    others.pop(swarm.pod(1))

    swarm.kill(swarm.pod(1))

    status = swarm.trains(seconds=60, _0=1, _1=2)
    assert {name: swarm.lives()[name] for name in others} == others
    (failed,) = [each for each in status["particleStatuses"] if each["index"] == 1]
    assert (failed["failures"], failed["lastExitCode"], failed["phase"]) == (1, -9, "Running")
    swarm.finish()
    assert swarm.condition("Complete")[:2] == ("True", "ModelWritten")
    assert swarm.row()["STATE"] == "Complete"
