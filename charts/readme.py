"""Writes README.md of each chart: README.md.gotmpl with the table of its values, as helm-docs would."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

PLACE = '{{ template "chart.valuesTable" . }}'
MARK = "# -- "


def readme(chart: Path) -> str:
    """The text of a chart's README.md."""
    text = (chart / "values.yaml").read_text()
    rows = [f"| {name} | `{default}` | {meaning} |" for name, default, meaning in values(text)]
    table = "\n".join(["| value | default | meaning |", "|---|---|---|", *rows])
    note = "<!-- Made by `make generate` from README.md.gotmpl and values.yaml. -->\n"
    return note + (chart / "README.md.gotmpl").read_text().replace(PLACE, table)


def values(text: str) -> Iterator[tuple[str, str, str]]:
    """Path, default as JSON and meaning of each value: of the leaves, and of the objects that have a comment."""
    lines = text.splitlines()

    def walk(node: yaml.MappingNode, path: str) -> Iterator[tuple[str, str, str]]:
        for key, value in node.value:
            name = f"{path}{key.value}"
            meaning = _comment(lines[: key.start_mark.line])
            if isinstance(value, yaml.MappingNode) and value.value and not meaning:
                yield from walk(value, f"{name}.")
            else:
                yield name, json.dumps(_plain(value), ensure_ascii=False), meaning.replace("|", "\\|")

    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    yield from walk(root, "")


def _comment(above: list[str]) -> str:
    """What stands above a value, from the last mark on; empty where there is none."""
    found: list[str] = []
    for line in reversed(above):
        text = line.strip()
        if text.startswith(MARK):
            return " ".join([text.removeprefix(MARK), *found])
        if not text.startswith("# "):
            break
        found.insert(0, text.removeprefix("# "))
    return ""


def _plain(node: yaml.Node) -> Any:
    return yaml.safe_load(yaml.serialize(node))


def main() -> int:
    """Write what has changed."""
    for template in sorted(Path(__file__).parent.glob("*/README.md.gotmpl")):
        chart = template.parent
        text, target = readme(chart), chart / "README.md"
        if not target.exists() or target.read_text() != text:
            target.write_text(text)
            print(f"wrote {target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
