"""The CRD and what else is made from the models. What an API server makes of it is in tests/apiserver."""

import json
import re
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field, ValidationError

from apiserver.manifests import ACCEPTED, REJECTED, a_job
from swarm_api.base import Model
from swarm_api.crd.definition import definition
from swarm_api.crd.generate import CRD, generated
from swarm_api.crd.rules import NAME, RULES, Rule
from swarm_api.crd.schema import structural
from swarm_api.job import SwarmTrainingJob
from swarm_api.storage import Checkpoint, Output
from swarm_operator.backends.local.template import read

ROOT = Path(__file__).parents[2]


def schema():
    return definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def nodes(node, path):
    """Every schema in a schema, by where it stands."""
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from nodes(field, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if key in node:
            yield from nodes(node[key], f"{path}[]")


def everywhere():
    return [*nodes(schema()["properties"]["spec"], "spec"), *nodes(schema()["properties"]["status"], "status")]


@pytest.mark.parametrize("name", generated())
def test_what_is_made_from_the_models_is_current(name):
    assert (ROOT / name).read_text() == generated()[name], "run `make generate`"


def test_it_is_small_enough_for_kubectl_apply_and_a_helm_release():
    assert len(generated()[CRD]) < 60_000


def test_every_string_list_and_map_is_bounded():
    bounds = {"string": {"maxLength", "enum"}, "array": {"maxItems"}}
    unbounded = [path for path, node in everywhere() if not bounds.get(node.get("type"), node.keys()) & node.keys()]
    unbounded += [path for path, node in everywhere() if "additionalProperties" in node and "maxProperties" not in node]
    assert not unbounded


def test_every_field_of_the_spec_is_explained():
    ours = ((path, node) for path, node in everywhere() if path.startswith("spec") and ".template.spec." not in path)
    assert not [path for path, node in ours if "description" not in node]


def test_every_link_of_the_reference_leads_somewhere():
    text = generated()["docs/crd.md"]
    sections = {line.removeprefix("## ").replace(".", "").lower() for line in text.splitlines() if line[:3] == "## "}
    assert set(re.findall(r"\]\(#(\w+)\)", text)) | {"spec", "status"} == sections


def test_every_rule_stands_somewhere():
    written = json.dumps(schema())
    rules = [rule for found in (NAME, *RULES.values()) for rule in found]
    assert not [rule for rule in rules if json.dumps(rule.rule) not in written]


class Inner(Model):
    """Inside."""

    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    names: tuple[str, ...] = ()
    limit: int | None = None


class Outer(Model):
    """Around it."""

    inner: Inner = Inner(share=0.25)
    plain: Inner = Inner()
    either: Annotated[int, Field(ge=1)] | Annotated[str, Field(max_length=4)] = "50%"
    """One
    or the other."""


def test_a_model_becomes_a_structural_schema():
    rule = Rule(rule="self > 0.1", message="m", field=".x")
    found = structural(Outer, {"Inner.share": (rule,)})["properties"]
    share = {
        "type": "number",
        "format": "double",
        "default": 0.5,
        "minimum": 0,
        "exclusiveMinimum": True,
        "maximum": 1,
        "exclusiveMaximum": True,
        "x-kubernetes-validations": [{"rule": "self > 0.1", "message": "m", "fieldPath": ".x"}],
    }
    assert found["inner"] == {
        "description": "Inside.",
        "type": "object",
        "default": {"share": 0.25},
        "properties": {
            "share": share,
            "names": {
                "type": "array",
                "default": [],
                "items": {"type": "string"},
                "x-kubernetes-list-type": "atomic",
            },
            "limit": {"type": "integer", "format": "int64"},
        },
    }
    assert found["plain"]["default"] == {}
    assert found["either"] == {
        "description": "One or the other.",
        "default": "50%",
        "minimum": 1,
        "maxLength": 4,
        "anyOf": [{"type": "integer"}, {"type": "string"}],
        "x-kubernetes-int-or-string": True,
    }
    assert "default" not in json.dumps(structural(Outer, {}, defaults=False))


class Endless(Model):
    """Holds itself."""

    more: "Endless | None" = None


class Undecided(Model):
    """Two kinds of object."""

    one: Inner | Output


class Keyed(Model):
    """Rules about keys."""

    named: dict[Annotated[str, Field(max_length=3)], int]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Endless, "Endless holds itself"),
        (Undecided, "Undecided.one: no structural schema has this union"),
        (Keyed, "Keyed.named: no structural schema has propertyNames"),
    ],
)
def test_what_no_structural_schema_can_say_is_an_error(model, message):
    with pytest.raises(ValueError, match=message):
        structural(model, {})


def refusals(manifest):
    """What a single machine says of it, where a cluster would refuse it too."""
    try:
        job = SwarmTrainingJob.model_validate(manifest)
    except ValidationError as error:
        return str(error)
    return "\n".join(problem.message for problem in read(job, ROOT).problems if problem.everywhere)


@pytest.mark.parametrize("changes", ACCEPTED.values(), ids=ACCEPTED)
def test_the_models_accept_what_an_api_server_accepts(changes):
    assert not refusals(a_job(changes))


@pytest.mark.parametrize("changes", [changes for changes, _ in REJECTED.values()], ids=REJECTED)
def test_the_models_refuse_what_an_api_server_refuses(changes):
    assert refusals(a_job(changes))


def test_the_output_of_a_job_is_a_folder_of_its_own():
    assert Output(existing_claim="models").folder("mnist") == "mnist"
    assert Output(existing_claim="models", path="a/b").folder("mnist") == "a/b"
    assert Checkpoint(existing_claim="models").folder("mnist") == "mnist/checkpoints"
    assert Checkpoint(existing_claim="models", path="a/b").folder("mnist") == "a/b"
