"""The table from settings to algorithms."""

import inspect
from typing import Any

import pytest

from swarm_api import algorithm as settings
from swarm_trainer.algorithms import EASGD, PSOPS, Algorithm, LocalSGD, build

CLASSES: dict[settings.AlgorithmName, type[Algorithm]] = {
    settings.AlgorithmName.PSOPS: PSOPS,
    settings.AlgorithmName.LOCAL_SGD: LocalSGD,
    settings.AlgorithmName.EASGD: EASGD,
}


@pytest.mark.parametrize("name", settings.AlgorithmName)
def test_every_name_builds_its_class_with_the_defaults_of_the_manifest(name: settings.AlgorithmName) -> None:
    algorithm = build(settings.Algorithm(name=name))
    assert type(algorithm) is CLASSES[name]
    members = {field.alias or key: field for key, field in settings.Algorithm.model_fields.items()}
    member = next(key for key in members if key.lower() == name.lower())
    explicit = build(settings.Algorithm.model_validate({"name": name, member: {}}))
    assert vars(explicit) == vars(algorithm)
    model: Any = getattr(settings, type(algorithm).__name__)
    parameters = inspect.signature(type(algorithm)).parameters.values()
    assert {each.name: each.default for each in parameters} == {
        key: field.default for key, field in model.model_fields.items()
    }
    assert all(each.kind is inspect.Parameter.KEYWORD_ONLY for each in parameters)


def test_settings_reach_the_algorithm() -> None:
    given = {"attractor": "Ring", "neighbors": 3, "memory": "BestEver", "maxVelocity": 0.5, "inertia": 0.3}
    algorithm = build(settings.Algorithm.model_validate({"name": "PSOPS", "psops": given}))
    assert isinstance(algorithm, PSOPS)
    assert (algorithm.attractor, algorithm.neighbors, algorithm.memory) == ("Ring", 3, "BestEver")
    assert (algorithm.max_velocity, algorithm.inertia, algorithm.social) == (0.5, 0.3, 1.0)
    elastic = build(
        settings.Algorithm.model_validate({"name": "EASGD", "easgd": {"beta": 0.4, "mode": "Asynchronous"}})
    )
    assert isinstance(elastic, EASGD)
    assert elastic.beta == 0.4
    assert not elastic.barrier
