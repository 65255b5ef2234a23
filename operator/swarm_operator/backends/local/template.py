"""What a pod template means on one machine: a command, its environment, a folder, a number of GPUs."""

import os
import platform
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from swarm_api import env
from swarm_api.job import PodTemplate, SwarmTrainingJob
from swarm_api.names import TRAINER_CONTAINER
from swarm_operator.backends.local.child import Launch
from swarm_operator.backends.local.pod import Container, EnvironmentVariable, PodSpec
from swarm_operator.backends.training import SYNCHRONIZER_COMMAND, training_container
from swarm_operator.plan.facts import Role

GPU: Final = "nvidia.com/gpu"
_REFERENCE = re.compile(r"\$(?:\$|\(([-._a-zA-Z][-._a-zA-Z0-9]*)\))")


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Something in a manifest that has to be changed."""

    where: tuple[str | int, ...]
    """From the root of the manifest: field names as written there, and positions in lists."""
    message: str
    everywhere: bool = True
    """Whether a cluster would refuse it too; False: only one machine cannot do it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How the processes of one role are started."""

    command: tuple[str, ...]
    environment: tuple[EnvironmentVariable, ...] = ()
    folder: Path
    gpus: int = 0

    def launch(
        self, name: str, own: Mapping[str, str], defaults: Mapping[str, str], forced: Mapping[str, str]
    ) -> Launch:
        """One process. Its environment: this machine's, `defaults`, `own` (SWARM_*), the template's, `forced`."""
        given = dict(own)
        for variable in self.environment:
            if variable.field is not None:
                given[variable.name] = _fields(name, own)[variable.field]
            elif variable.value is not None:
                given[variable.name] = _expand(variable.value, given)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("SWARM_")}
        # A shell script in the template finds the same python, torchrun ... as a plain `python` does.
        path = os.pathsep.join((str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)))
        program, *rest = (_expand(word, given) for word in self.command)
        return Launch(
            argv=(sys.executable if program in ("python", "python3") else program, *rest),
            env={**inherited, "PATH": path, **defaults, **given, **forced},
            cwd=self.folder,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipes:
    """What a job's templates come to on this machine. With problems it cannot run."""

    particle: Recipe
    synchronizer: Recipe
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    """What is not done here that a cluster would do, a line each."""

    def of(self, role: Role) -> Recipe:
        """The recipe of this role."""
        return self.particle if role is Role.PARTICLE else self.synchronizer

    @property
    def gpus_matter(self) -> bool:
        """Whether anyone asks for GPUs, so that who asks for none must see none."""
        return bool(self.particle.gpus or self.synchronizer.gpus)


def read(job: SwarmTrainingJob, folder: Path) -> Recipes:
    """Read both templates; `folder` is where the manifest lies."""
    particle = _Reader(("spec", "particles", "template"), folder, ())
    synchronizer = _Reader(("spec", "synchronizer", "template"), folder, SYNCHRONIZER_COMMAND)
    return Recipes(
        particle=particle.read(job.spec.particles.template),
        synchronizer=synchronizer.read(job.spec.synchronizer.template),
        problems=(*particle.problems, *synchronizer.problems),
        notes=tuple(dict.fromkeys((*particle.notes, *synchronizer.notes, *_notes(job)))),
    )


def _notes(job: SwarmTrainingJob) -> Iterator[str]:
    """Fields outside of the templates that mean nothing here."""
    if job.spec.synchronizer.output is not None:
        yield "synchronizer.output is ignored on one machine: the model goes to the folder of the run"
    if job.spec.synchronizer.checkpoint is not None:
        yield "synchronizer.checkpoint's claim is ignored on one machine: checkpoints go to the folder of the run"


class _Reader:
    def __init__(self, where: tuple[str | int, ...], folder: Path, command: tuple[str, ...]) -> None:
        self.where = (*where, "spec")
        self.folder = folder
        self.command = command
        self.problems: list[Problem] = []
        self.notes: list[str] = []

    def read(self, template: PodTemplate | None) -> Recipe:
        nothing = Recipe(command=self.command, folder=self.folder)
        if template is None:
            return nothing
        try:
            pod = PodSpec.parse(template.spec)
        except ValidationError as error:
            self.problems += (
                Problem(where=(*self.where, *found["loc"]), message=found["msg"]) for found in error.errors()
            )
            return nothing
        chosen = self._choose(pod)
        if chosen is None:
            return nothing
        position, container = chosen
        if pod.init_containers:
            self.notes.append("initContainers are not run on one machine")
        if len(pod.containers) > 1:
            others = ", ".join(other.name for other in pod.containers if other is not container)
            self.notes.append(f"only container {container.name} runs on one machine; ignored: {others}")
        return self._recipe(pod, container, ("containers", position))

    def _choose(self, pod: PodSpec) -> tuple[int, Container] | None:
        position = training_container([container.name for container in pod.containers])
        if position is not None:
            return position, pod.containers[position]
        self._problem(("containers",), f"one of them must be named {TRAINER_CONTAINER}: the one that trains")
        return None

    def _recipe(self, pod: PodSpec, container: Container, where: tuple[str | int, ...]) -> Recipe:
        command = (*(container.command or self.command), *container.args)
        if not container.command and not self.command:
            self._local((*where, "command"), "needed on one machine, where no image says what to run")
        self._check_environment(container, where)
        self._check_volumes(pod, container, where)
        return Recipe(
            command=command,
            environment=container.env,
            folder=self._folder(container, where),
            gpus=self._gpus(container, where),
        )

    def _folder(self, container: Container, where: tuple[str | int, ...]) -> Path:
        if container.working_dir is None:
            return self.folder
        folder = self.folder / container.working_dir
        if not folder.is_dir():
            remedy = f"leave it out to run in the manifest's folder, {self.folder}"
            self._local((*where, "workingDir"), f"{folder} is no folder of this machine: {remedy}")
        return folder

    def _check_environment(self, container: Container, where: tuple[str | int, ...]) -> None:
        for position, variable in enumerate(container.env):
            here = (*where, "env", position)
            if variable.name.startswith("SWARM_"):
                self._problem((*here, "name"), f"{variable.name} is set by swarm itself: remove it")
            if variable.field is not None and variable.field not in _fields("", {}):
                known = ", ".join(_fields("", {}))
                self._local((*here, "valueFrom"), f"one machine has no {variable.field}: use one of {known}, or value")
            elif variable.source and variable.field is None and not variable.optional:
                self._local((*here, "valueFrom", variable.source), "one machine has none: use value")
        for position, _ in enumerate(container.env_from):
            self._local((*where, "envFrom", position), "one machine has no ConfigMaps and Secrets: use env with value")

    def _check_volumes(self, pod: PodSpec, container: Container, where: tuple[str | int, ...]) -> None:
        for position, mount in enumerate(container.volume_mounts):
            here = (*where, "volumeMounts", position)
            found = next(
                ((i, volume) for i, volume in enumerate(pod.volumes) if volume.get("name") == mount.name), None
            )
            if found is None:
                self._problem((*here, "name"), f"no volume is named {mount.name}")
                continue
            index, volume = found
            if "emptyDir" in volume:
                self.notes.append(
                    f"volume {mount.name} (emptyDir) is not mounted on one machine: "
                    f"{mount.mount_path} is this machine's own"
                )
            elif (volume.get("hostPath") or {}).get("path") != mount.mount_path:
                kind = next((key for key in volume if key != "name"), "name")
                self._local(
                    ("volumes", index, kind),
                    f"cannot be mounted at {mount.mount_path} on one machine: remove the volume "
                    "and let the script read a path of this machine",
                )

    def _gpus(self, container: Container, where: tuple[str | int, ...]) -> int:
        asked = {**container.resources.requests, **container.resources.limits}
        for name in asked:
            if "/" in name and name != GPU:
                self._local((*where, "resources", "limits", name), f"one machine deals out {GPU} only: remove it")
        if "memory" in container.resources.limits or "cpu" in container.resources.limits:
            self.notes.append("limits of cpu and memory are not enforced on one machine")
        gpus = str(asked.get(GPU, 0))
        if not gpus.isdecimal():
            self._problem((*where, "resources", "limits", GPU), f"{gpus!r} must be a whole number")
            return 0
        return int(gpus)

    def _problem(self, where: tuple[str | int, ...], message: str) -> None:
        self.problems.append(Problem(where=(*self.where, *where), message=message))

    def _local(self, where: tuple[str | int, ...], message: str) -> None:
        self.problems.append(Problem(where=(*self.where, *where), message=message, everywhere=False))


def _fields(name: str, own: Mapping[str, str]) -> dict[str, str]:
    """What `fieldRef` can name here, and its value for the child `name`."""
    return {
        "metadata.name": name,
        "metadata.namespace": own.get(env.NAMESPACE, ""),
        "metadata.uid": own.get(env.INSTANCE_UID, ""),
        "spec.nodeName": platform.node(),
        "status.hostIP": "127.0.0.1",
        "status.podIP": "127.0.0.1",
    }


def _expand(text: str, known: Mapping[str, str]) -> str:
    """Kubernetes' own rule: $(NAME) where NAME is known, $$ for a dollar, all else as it stands."""

    def value(match: re.Match[str]) -> str:
        return "$" if match[1] is None else known.get(match[1], match[0])

    return _REFERENCE.sub(value, text)
