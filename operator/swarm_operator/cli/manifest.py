"""Reads a manifest and says what is wrong with it in the words of the manifest: field, line, remedy."""

import difflib
import re
import types
import typing
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from swarm_api.job import SwarmTrainingJob
from swarm_api.names import API_VERSION, KIND
from swarm_operator.backends.local.template import Problem, Recipes, read

Where = tuple[str | int, ...]


class ManifestError(Exception):
    """The manifest cannot be used."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)
        """One line each: file, line of the file where it is known, field, what is wrong."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A manifest that is one. Whether its templates can run on this machine stands in `recipes`."""

    path: Path
    home: Path
    """The folder from which its templates are run."""
    data: dict[str, Any]
    """As in the file, after --set."""
    job: SwarmTrainingJob
    """With a new uid."""
    recipes: Recipes
    lines: yaml.Node

    def said(self, problems: Iterable[Problem]) -> list[str]:
        """The problems, a line each."""
        return [_said(self.path, self.lines, problem) for problem in problems]


def load(path: Path, changes: Sequence[tuple[Where, Any]] = (), *, home: Path | None = None) -> Manifest:
    """Read the SwarmTrainingJob in a file, with fields changed. Its home is the file's folder unless one is given.

    Raises:
        ManifestError: it cannot be read or is no valid job.
    """
    node, data = _document(path)
    problems = list(_twice(node, ()))
    for where, value in changes:
        problems += _change(data, where, value)
    problems += (
        Problem(where=(key,), message=f"must be {value}")
        for key, value in (("apiVersion", API_VERSION), ("kind", KIND))
        if key not in data
    )
    data.pop("status", None)
    try:
        job = SwarmTrainingJob.model_validate(data)
    except ValidationError as error:
        problems += _explained(error, data)
        raise ManifestError([_said(path, node, problem) for problem in problems]) from None
    if problems:
        raise ManifestError([_said(path, node, problem) for problem in problems])
    job = job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": str(uuid.uuid4())})})
    home = home or path.resolve().parent
    return Manifest(path=path, home=home, data=data, job=job, recipes=read(job, home), lines=node)


def change(text: str) -> tuple[Where, Any]:
    r"""Read `spec.particles.replicas=8`; lists as `containers[0]`, dots in a name as `\.`, values as in YAML.

    Raises:
        ValueError: it is not of this form.
    """
    path, equals, value = text.partition("=")
    names = re.split(r"(?<!\\)\.", path)
    steps = [re.fullmatch(r"((?:\\.|[^\[\]\\])+)((?:\[\d+\])*)", name) for name in names]
    if not equals or not all(steps):
        raise ValueError(f"{text!r} is not of the form spec.field=value")
    where: list[str | int] = []
    for step in steps:
        assert step
        where += [step[1].replace("\\.", "."), *(int(number) for number in re.findall(r"\d+", step[2]))]
    try:
        return tuple(where), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ValueError(f"{value!r} is no YAML value") from error


def _document(path: Path) -> tuple[yaml.Node, dict[str, Any]]:
    """The one SwarmTrainingJob in the file, with the places of its fields; else the only document."""
    try:
        text = path.read_text()
        pairs = zip(yaml.compose_all(text, yaml.SafeLoader), yaml.safe_load_all(text), strict=True)
        documents = [(node, document) for node, document in pairs if document is not None]
    except OSError as error:
        raise ManifestError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ManifestError([f"{path}: not a text file"]) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ManifestError([f"{path}{line}: not YAML: {getattr(error, 'problem', None) or error}"]) from None
    found = [
        (node, document)
        for node, document in documents
        if len(documents) == 1 or (isinstance(document, dict) and document.get("kind") == KIND)
    ]
    if len(found) != 1:
        raise ManifestError([f"{path}: holds {len(found)} documents of kind {KIND}, and must hold one"])
    node, document = found[0]
    if not isinstance(document, dict):
        raise ManifestError([f"{path}: holds no {KIND}"])
    return node, document


def _twice(node: yaml.Node, where: Where) -> Iterator[Problem]:
    """Keys that stand twice in a mapping: YAML takes the last one without a word."""
    if isinstance(node, yaml.SequenceNode):
        for position, item in enumerate(node.value):
            yield from _twice(item, (*where, position))
    if isinstance(node, yaml.MappingNode):
        seen = set()
        for key, value in node.value:
            here = (*where, str(key.value))
            if here in seen:
                yield Problem(where=here, message="stands here twice: remove one")
            seen.add(here)
            yield from _twice(value, here)


def _change(data: dict[str, Any], where: Where, value: Any) -> Iterator[Problem]:
    holder: Any = data
    for position, step in enumerate(where):
        fits = isinstance(holder, dict) if isinstance(step, str) else isinstance(holder, list) and step < len(holder)
        if not fits:
            yield Problem(where=where, message=f"cannot be set: there is no {_dotted(where[: position + 1])}")
            return
        if position == len(where) - 1:
            holder[step] = value
        elif isinstance(step, str):
            holder = holder.setdefault(step, {})
        else:
            holder = holder[step]


def _explained(error: ValidationError, data: Any) -> Iterator[Problem]:
    """One problem for each field; where several forms are allowed, what each of them wants."""
    wanted: dict[Where, list[str]] = {}
    for found in error.errors(include_url=False):
        where = _in_document(found["loc"], data)
        message = {"extra_forbidden": _unknown(where), "missing": "is missing"}.get(
            found["type"], found["msg"].removeprefix("Value error, ")
        )
        wanted.setdefault(where, []).append(message)
    for where, messages in wanted.items():
        yield Problem(where=where, message=", or: ".join(dict.fromkeys(messages)))


def _in_document(where: Where, data: Any) -> Where:
    """The steps that lead through the document: pydantic also names the members of a union."""
    kept: list[str | int] = []
    for step in where:
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and isinstance(step, int):
            data = data[step]
        else:
            continue
        kept.append(step)
    return tuple(kept)


def _unknown(where: Where) -> str:
    model: type[BaseModel] | None = SwarmTrainingJob
    for step in where[:-1]:
        model = model and _models(model).get(str(step))
    known = [] if model is None else [field.alias or name for name, field in model.model_fields.items()]
    close = difflib.get_close_matches(str(where[-1]), known, n=1)
    return f"unknown field; did you mean {close[0]}?" if close else f"unknown field; known are {', '.join(known)}"


def _models(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """The fields of a model that are models themselves."""
    found: dict[str, type[BaseModel]] = {}
    for name, field in model.model_fields.items():
        optional = typing.get_origin(field.annotation) in (typing.Union, types.UnionType)
        for kind in typing.get_args(field.annotation) if optional else (field.annotation,):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found[field.alias or name] = kind
    return found


def _said(path: Path, node: yaml.Node, problem: Problem) -> str:
    line = node.start_mark.line
    for step in problem.where:
        if isinstance(node, yaml.MappingNode) and isinstance(step, str):
            pairs = [(key, value) for key, value in node.value if key.value == step]
            if not pairs:
                break
            key, node = pairs[-1]
            line = key.start_mark.line
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return f"{path}:{line + 1}: {_dotted(problem.where)}: {problem.message}"


def _dotted(where: Where) -> str:
    """spec.particles.template.spec.containers[0].env."""
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return "".join(steps).removeprefix(".") or "manifest"
