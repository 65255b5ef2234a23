"""The part of a Kubernetes pod spec that means something on one machine."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Part(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True)


class EnvironmentVariable(_Part):
    """One of `env`."""

    name: str
    value: str | None = None
    value_from: dict[str, dict[str, Any]] = Field(default_factory=dict)

    @property
    def source(self) -> str:
        """Which kind of `valueFrom`: fieldRef, secretKeyRef ...; empty where there is none."""
        return next(iter(self.value_from), "")

    @property
    def field(self) -> str | None:
        """The pod's field that it is to hold."""
        path = self.value_from.get("fieldRef", {}).get("fieldPath")
        return None if path is None else str(path)

    @property
    def optional(self) -> bool:
        """Whether it may stay unset where its source does not exist."""
        return bool(self.value_from.get(self.source, {}).get("optional"))


class VolumeMount(_Part):
    """One of `volumeMounts`."""

    name: str
    mount_path: str


class Resources(_Part):
    """Requests and limits; the quantities as they stand."""

    requests: dict[str, int | float | str] = Field(default_factory=dict)
    limits: dict[str, int | float | str] = Field(default_factory=dict)


class Container(_Part):
    """One of `containers`."""

    name: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    working_dir: str | None = None
    env: tuple[EnvironmentVariable, ...] = ()
    env_from: tuple[dict[str, Any], ...] = ()
    volume_mounts: tuple[VolumeMount, ...] = ()
    resources: Resources = Resources()


class PodSpec(_Part):
    """A pod spec."""

    containers: tuple[Container, ...]
    init_containers: tuple[dict[str, Any], ...] = ()
    volumes: tuple[dict[str, Any], ...] = ()

    @classmethod
    def parse(cls, spec: dict[str, Any]) -> Self:
        """Read it as the API server does, to which null is the same as absent.

        Raises:
            pydantic.ValidationError: a field has the wrong type.
        """
        return cls.model_validate(_without_nulls(spec))


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value
