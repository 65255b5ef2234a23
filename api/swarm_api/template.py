"""What the contract knows of a pod template; everything else in one is Kubernetes' own and kept as it is."""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from swarm_api.base import Model

RESTART_POLICY: Final = "remove it, for a particle that ended is started again as a new pod"


class Declared(Model):
    """A part of a pod template: beside its fields there may be any others."""

    model_config = ConfigDict(**{**Model.model_config, "extra": "allow"})


class EnvironmentVariable(Declared):
    """One of `env`."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """SWARM_* are set by the operator."""


class Container(Declared):
    """One of `containers` or `initContainers`."""

    name: Annotated[str, Field(min_length=1, max_length=63)]
    env: Annotated[tuple[EnvironmentVariable, ...], Field(max_length=512)] | None = None


class PodSpec(Declared):
    """The fields of a pod's spec that rules speak about."""

    containers: Annotated[tuple[Container, ...], Field(min_length=1, max_length=32)]
    """Of several, the one named trainer is the one that trains."""
    init_containers: Annotated[tuple[Container, ...], Field(max_length=32)] | None = None
    restart_policy: Annotated[str, Field(max_length=16)] | None = None
    """Never, or left out."""
    hostname: Annotated[str, Field(max_length=63)] | None = None
    """Set by the operator."""
    subdomain: Annotated[str, Field(max_length=63)] | None = None
    """Set by the operator."""


@dataclass(frozen=True)
class DeclaredAs:
    """Marks a dict of which the schema declares what this model has; it is not checked against the model."""

    model: type[BaseModel]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler(source)

    def __get_pydantic_json_schema__(self, _: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(self.model.__pydantic_core_schema__)
