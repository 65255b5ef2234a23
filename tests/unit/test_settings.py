"""What a synchronizer is told of a job."""

from swarm_api.job import SwarmTrainingJob
from swarm_api.settings import Settings
from swarm_api.status import Attempt, JobStatus


def test_a_synchronizer_that_starts_late_knows_who_finished_and_who_was_given_up():
    attempts = {
        "0": Attempt(incarnation=1, finished=True),
        "2": Attempt(incarnation=4, quarantined=True),
        "10": Attempt(incarnation=1, finished=True),
        "1": Attempt(incarnation=2),
        "synchronizer": Attempt(incarnation=2, finished=True),
    }
    job = SwarmTrainingJob(
        metadata={"name": "mnist", "uid": "u-1"},
        spec={
            "algorithm": {"name": "PSOPS"},
            "particles": {
                "replicas": 11,
                "join": {"optimizerState": "Fresh"},
                "template": {"spec": {"containers": [{"name": "trainer"}]}},
            },
        },
        status=JobStatus(attempts=attempts),
    )
    settings = Settings.of(job)
    assert settings.join.optimizer_state == "Fresh"
    assert (settings.finished, settings.given_up) == ((0, 10), (2,))
    assert Settings.model_validate_json(settings.model_dump_json(by_alias=True)) == settings
