"""What the documentation says of tests is true."""

import ast
import re
from pathlib import Path

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
