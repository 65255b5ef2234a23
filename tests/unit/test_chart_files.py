"""That what lies in the chart's folder fits together. What it renders to is in tests/apiserver."""

import json
import runpy
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "swarm-operator"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
readme = runpy.run_path(str(ROOT / "charts" / "readme.py"))


def test_the_readme_is_current():
    assert (CHART / "README.md").read_text() == readme["readme"](CHART), "run `make generate`"


def test_every_value_is_explained():
    rows = readme["values"]((CHART / "values.yaml").read_text())
    assert not [name for name, _, meaning in rows if not meaning]


def test_the_schema_knows_exactly_the_values():
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert schema["properties"].keys() - VALUES.keys() == {"global"}
    for name, value in VALUES.items():
        known = schema["properties"][name].get("properties")
        assert known is None or known.keys() == value.keys()
    assert all(part["additionalProperties"] is False for part in (schema, *_closed(schema)))


def _closed(schema):
    return [part for part in schema["properties"].values() if "properties" in part]


def test_chart_and_package_have_one_version():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert f'\nversion = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()
