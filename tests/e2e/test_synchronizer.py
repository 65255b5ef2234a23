"""What befalls the synchronizer's pod befalls no particle."""

import pytest

from e2e.swarms import Swarm, shows


@pytest.mark.core
def test_a_killed_synchronizer_is_replaced_and_the_particles_train_on(swarm: Swarm) -> None:
    swarm.start(replicas=2)
    before = swarm.trains(_0=1, _1=1)
    particles = swarm.lives_but(swarm.synchronizer())

    swarm.kill(swarm.synchronizer())

    after = swarm.trains(seconds=90, _0=1, _1=1, synchronizer=2)
    swarm.goes_on()
    swarm.keeps(particles)
    assert after["training"]["round"] >= before["training"]["round"]
    assert after["attempts"]["synchronizer"]["lastExitCode"] == -9
    assert shows(swarm.row(wide=True), STATE="Running", PARTICLES="2/2", RESTARTS="1")
    swarm.finish()
    assert swarm.condition("Complete")[:2] == ("True", "Finished")
