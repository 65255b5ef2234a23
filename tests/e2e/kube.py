"""A cluster as a test sees it: one namespace of its own, and questions that are asked until the answer is right."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cluster import CommandError, console

T = TypeVar("T")
Object = dict[str, Any]

LOOK_SECONDS = 0.3
"""Between two questions: each is a process of its own, on a machine that trains meanwhile."""


class Kube:
    """`kubectl` in one namespace; raises CommandError."""

    def __init__(self, namespace: str, environment: dict[str, str], context: str = "") -> None:
        self.namespace = namespace
        self.environment = environment
        self._context = [f"--context={context}"] if context else []

    def __call__(self, *arguments: str | Path, stdin: str | None = None, timeout: float = 60) -> str:
        command = ["kubectl", *self._context, f"--namespace={self.namespace}", *arguments]
        return console.output(command, env=self.environment, stdin=stdin, timeout=timeout)

    def in_namespace(self, namespace: str) -> "Kube":
        """The same cluster, another namespace."""
        other = Kube(namespace, self.environment)
        other._context = self._context
        return other

    def apply(self, *objects: Object) -> None:
        """`kubectl apply` of objects."""
        self("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))

    def get(self, kind: str, name: str) -> Object | None:
        """The object; None if there is none."""
        found = self("get", kind, name, "--ignore-not-found", "--output=json")
        return dict(json.loads(found)) if found else None

    def list(self, kind: str, selector: str = "") -> list[Object]:
        """All objects of a kind."""
        return list(json.loads(self("get", kind, f"--selector={selector}", "--output=json"))["items"])


def until(look: Callable[[], T], good: Callable[[T], object], what: str, seconds: float) -> T:
    """What is seen as soon as it is good.

    Raises:
        AssertionError: it was not in time; with what was seen last.
        CommandError: a question failed.
    """
    end = time.monotonic() + seconds
    while True:
        late = time.monotonic() > end
        seen = look()
        if good(seen):
            return seen
        if late:
            raise AssertionError(f"{what}: not within {seconds:.0f} s; last seen: {seen}")
        time.sleep(LOOK_SECONDS)


def story(kube: Kube, operator: Kube, deployment: str) -> Sequence[tuple[str, str]]:
    """What a person would look at when a test failed: titles and texts."""
    questions: list[tuple[str, Kube, list[str]]] = [
        ("jobs", kube, ["get", "swarmtrainingjobs", "--output=wide"]),
        ("pods", kube, ["get", "pods", "--output=wide"]),
        ("events", kube, ["get", "events", "--sort-by=.metadata.creationTimestamp"]),
        ("status of the jobs", kube, ["get", "swarmtrainingjobs", "--output=jsonpath={range .items[*]}{.status}{end}"]),
        ("operator's log", operator, ["logs", f"deployment/{deployment}", "--tail=60"]),
        ("nodes", operator, ["get", "nodes"]),
    ]
    told = [(title, _answer(who, arguments)) for title, who, arguments in questions]
    for name in _answer(kube, ["get", "pods", "--output=name"]).split():
        told.append((f"log of {name}", _answer(kube, ["logs", name, "--all-containers", "--tail=30"])))
    return told


def _answer(kube: Kube, arguments: Sequence[str]) -> str:
    try:
        return kube(*arguments, timeout=20)
    except CommandError as error:
        return str(error)
