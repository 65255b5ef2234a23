"""Which Docker engine carries the cluster, and its command line."""

import enum
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import console, dockerd, relay
from cluster.errors import CommandError, UnavailableError

_KEY = "swarm.training/key"
_PROBE = "kindest/node:v1.34.0"


class Mode(enum.Enum):
    """Where images come from."""

    REGISTRY = "registry"
    """The user's own Docker engine, kind's own node image."""
    OFFLINE = "offline"
    """Our own engine without a network, all images made here."""


@dataclass(frozen=True)
class Docker:
    """The command line of an engine."""

    mode: Mode
    environment: Mapping[str, str]

    def __call__(self, *arguments: str | Path, timeout: float | None = 120) -> str:
        """The output of `docker ...`; raises CommandError."""
        return console.output(["docker", *arguments], env=self.environment, timeout=timeout)

    def has(self, image: str, key: str = "") -> bool:
        """Whether the engine holds an image, made by a recipe with this key."""
        form = f'{{{{index .Config.Labels "{_KEY}"}}}}'
        try:
            found = self("image", "inspect", "--format", form if key else "", image)
        except CommandError:
            return False
        return not key or found.strip() == key

    def build(
        self,
        context: Path,
        tag: str,
        *,
        target: str | None = None,
        file: Path | None = None,
        arguments: Mapping[str, str] | None = None,
        key: str = "",
    ) -> None:
        """Build an image; while it is built, and only then, package registries are within reach.

        Without a registry the base images `debian:bookworm-slim` and `python:3.11-slim-bookworm` exist all the same
        (see images.py), and BuildKit's extensions of the Dockerfile language do not.

        Args:
            context: the folder that is sent to the engine.
            target: a stage of the Dockerfile.
            file: the Dockerfile, if it is not the context's.
            arguments: build arguments.
            key: of the recipe, for `has`.
        """
        command: list[str | Path] = ["docker", "build", "--tag", tag]
        command += ["--target", target] if target else []
        command += ["--file", file] if file else []
        for name, value in (arguments or {}).items():
            command += ["--build-arg", f"{name}={value}"]
        command += ["--label", f"{_KEY}={key}"] if key else []
        with self._registries() as options:
            console.logged([*command, *options, context], env=self.environment)

    @contextmanager
    def _registries(self) -> Iterator[list[str]]:
        init = dockerd.init_pid() if self.mode is Mode.OFFLINE else None
        if init is None:
            yield []
            return
        with relay.egress(init) as proxy:
            names = ("http_proxy", "https_proxy")
            yield ["--force-rm", "--network=host", *(f"--build-arg={name}={proxy}" for name in names)]


def running() -> Docker | None:
    """The engine that carries a cluster now, if there is one: ours where it runs, else the user's."""
    if dockerd.init_pid() is not None:
        return Docker(Mode.OFFLINE, dockerd.environment())
    return Docker(Mode.REGISTRY, dict(os.environ)) if _engine_answers() else None


def start() -> Docker:
    """The engine to use, started if need be.

    SWARM_CLUSTER=registry or =offline decides; else it is the user's engine where that reaches a container registry.

    Raises:
        UnavailableError: neither way is open here.
    """
    if mode() is Mode.REGISTRY:
        return Docker(Mode.REGISTRY, dict(os.environ))
    dockerd.start()
    return Docker(Mode.OFFLINE, dockerd.environment())


def mode() -> Mode:
    """Which of the two ways `start` would go.

    Raises:
        UnavailableError: SWARM_CLUSTER asks for what is not here.
    """
    wanted = os.environ.get("SWARM_CLUSTER")
    if wanted:
        try:
            asked = Mode(wanted)
        except ValueError:
            raise UnavailableError(f"SWARM_CLUSTER={wanted}: set it to registry or offline, or not at all") from None
        if asked is Mode.REGISTRY and not _engine_answers():
            raise UnavailableError("SWARM_CLUSTER=registry, but no Docker engine answers: start one")
        return asked
    if dockerd.init_pid() is not None:
        return Mode.OFFLINE
    reaches = _engine_answers() and (
        console.succeeds(["docker", "image", "inspect", _PROBE])
        or console.succeeds(["docker", "manifest", "inspect", _PROBE], timeout=15)
    )
    return Mode.REGISTRY if reaches else Mode.OFFLINE


def _engine_answers() -> bool:
    return shutil.which("docker") is not None and console.succeeds(["docker", "version"], timeout=10)
