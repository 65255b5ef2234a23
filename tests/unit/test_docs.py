"""What the documentation says of tests is true, and it leaves out nothing that a job says."""

import ast
import re
from pathlib import Path

import pytest

from swarm_api import exits
from swarm_api.status import JobState
from swarm_operator.backends.kubernetes.pods import SYNCHRONIZER_REQUESTS
from swarm_operator.cluster.metrics import Metrics
from swarm_trainer.synchronizer.gauges import Gauges
from unit.plan.builders import World, a_job

ROOT = Path(__file__).parents[2]
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def defined(module: Path) -> set[str]:
    """Names of its tests."""
    return {node.name for node in ast.parse(module.read_text()).body if isinstance(node, ast.FunctionDef)}


def test_every_fault_in_the_documentation_is_caused_by_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "faults.md").read_text()
    tests = {(path.name, name) for path in (ROOT / "tests").glob("**/test_*.py") for name in defined(path)}
    assert set(NAMED.findall(text)) <= tests
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what ")]
    assert not [row for row in rows if not NAMED.search(row)]


def test_every_test_of_the_fault_table_is_in_the_documentation() -> None:
    named = set(NAMED.findall((ROOT / "docs" / "faults.md").read_text()))
    table = (ROOT / "tests" / "faults").glob("test_faults_of_*.py")
    tests = {(path.name, name) for path in table for name in defined(path) if name.startswith("test_")}
    assert tests <= named


def metrics() -> set[str]:
    operator = Metrics(states=lambda: (), depth=lambda: 0, silence=lambda: 0.0)
    registries = operator.registry, Gauges().registry
    kinds = {"counter": "_total"}
    return {each.name + kinds.get(each.type, "") for registry in registries for each in registry.collect()}


def conditions() -> set[str]:
    return {condition.type for condition in World(a_job()).plan().status.conditions}


def codes() -> set[str]:
    return {str(code) for name, code in vars(exits).items() if name.isupper()}


@pytest.mark.parametrize(
    ("column", "names"),
    [
        (r"`(\w+)(?:\{[\w,]+\})?`", metrics()),
        (r"(\w+)", conditions()),
        (r"(\w+)", set(JobState)),
        (r"(\d+)", codes()),
    ],
    ids=["metrics", "conditions", "states", "exit codes"],
)
def test_what_a_job_says_is_in_the_documentation(column: str, names: set[str]) -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert names
    assert names <= set(re.findall(rf"^\| {column} \|", text, re.MULTILINE))


def test_the_documentation_has_no_metric_that_is_none() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    assert set(re.findall(r"^\| `(swarm_\w+)", text, re.MULTILINE)) == metrics()


def test_what_the_default_synchronizer_requests_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "crd.md").read_text()
    assert "It requests {cpu} of a CPU and {memory} of memory".format(**SYNCHRONIZER_REQUESTS) in text


def test_every_link_of_the_documentation_leads_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    texts = {page: re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE) for page in pages}
    anchors = {
        page: {re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in re.findall(r"^#+ (.*)", text, re.M)}
        for page, text in texts.items()
    }
    lost = []
    for page, text in texts.items():
        for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", text):
            target = (page.parent / link).resolve() if link else page
            if not target.exists() or (anchor and anchor not in anchors[target]):
                lost.append(f"{page.name}: {link}#{anchor}")
    assert not lost
