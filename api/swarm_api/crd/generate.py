"""Everything in the repository that is made from the models."""

from typing import Any, Final

import yaml

from swarm_api.crd.definition import definition
from swarm_api.crd.reference import reference

CRD: Final = "crds/swarm.training_swarmtrainingjobs.yaml"
CHART: Final = "charts/swarm-operator/templates/crd/swarmtrainingjobs.yaml"
REFERENCE: Final = "docs/crd.md"

_MADE: Final = "made by `make generate` from api/swarm_api: change the models there"
_CHART: Final = """\
{{{{- /* {made} */}}}}
{{{{- if .Values.crds.enabled }}}}
{crd}{{{{- end }}}}
"""


def generated() -> dict[str, str]:
    """Contents by path from the repository's root."""
    crd = definition()
    return {
        CRD: f"# {_MADE}\n{_yaml(crd)}",
        CHART: _CHART.format(made=_MADE, crd=_yaml(_kept(crd))),
        REFERENCE: reference(crd),
    }


def _kept(crd: dict[str, Any]) -> dict[str, Any]:
    """Left in place when the chart is uninstalled: with the definition all jobs would be deleted."""
    metadata = {**crd["metadata"], "annotations": {"helm.sh/resource-policy": "keep"}}
    return {**crd, "metadata": metadata}


def _yaml(value: Any) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
    return text


class _Dumper(yaml.SafeDumper):
    """Writes an object that appears twice twice."""

    def ignore_aliases(self, data: Any) -> bool:
        return True
