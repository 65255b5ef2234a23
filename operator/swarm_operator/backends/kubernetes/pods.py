"""Pods from a job's templates: what the user wrote is kept, what the swarm needs is added to it."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Final

from swarm_api import env
from swarm_api.job import PodTemplate, SwarmTrainingJob
from swarm_api.names import TRAINER_CONTAINER, particle_name, synchronizer_name
from swarm_api.settings import Settings
from swarm_operator.backends.kubernetes import children, labels
from swarm_operator.backends.kubernetes.placement import keep_off
from swarm_operator.backends.training import SYNCHRONIZER_COMMAND, training_container
from swarm_operator.plan.facts import Role

FOLDER: Final = "/var/run/swarm"
"""Everything that the operator mounts is below it."""
SETTINGS_FILE: Final = "settings.json"
SYNCHRONIZER_REQUESTS: Final = {"cpu": "250m", "memory": "1Gi"}
"""Of the synchronizer that is made where the job has no template for it."""

_SECRETS: Final = "swarm-secrets"
_SETTINGS: Final = "swarm-settings"
_STORED: Final = {"output": env.OUTPUT_DIR, "checkpoint": env.CHECKPOINT_DIR}
"""What is kept on claims, and the variable that says where."""

_Object = dict[str, Any]


def particle_pod(job: SwarmTrainingJob, index: int, incarnation: int, *, avoid: Sequence[str] = ()) -> _Object:
    """The pod of one incarnation of a particle; avoid: nodes that it must not come to."""
    template = job.spec.particles.template
    name = particle_name(job.metadata.name, index, incarnation)
    pod, trainer = _pod(job, name, template, labels.of_pod(job, Role.PARTICLE, index, incarnation), avoid)
    address = f"{children.service_name(job)}.{job.metadata.namespace}.svc:{env.PORT}"
    own = {env.PARTICLE_INDEX: str(index), env.SYNCHRONIZER_ADDRESS: address}
    _set_environment(trainer, {**_identity(job, incarnation), **own})
    _mount_secrets(job, pod, trainer, children.LINK_SECRET)
    return pod


def synchronizer_pod(job: SwarmTrainingJob, incarnation: int, *, avoid: Sequence[str] = ()) -> _Object:
    """The pod of one incarnation of the synchronizer; avoid: nodes that it must not come to."""
    name = synchronizer_name(job.metadata.name, incarnation)
    template = job.spec.synchronizer.template or default_synchronizer(job)
    pod, trainer = _pod(job, name, template, labels.of_pod(job, Role.SYNCHRONIZER, 0, incarnation), avoid)
    pod["metadata"].setdefault("annotations", {})[labels.SETTINGS] = settings(job)
    if not trainer.get("command"):
        trainer["command"] = list(SYNCHRONIZER_COMMAND)
    if not trainer.get("image"):
        trainer["image"] = _trainer(job.spec.particles.template.spec).get("image")
    _publish_ports(trainer)
    own = {env.SETTINGS_FILE: f"{FOLDER}/settings/{SETTINGS_FILE}"}
    own[env.REPORT_TOKEN_FILE] = f"{FOLDER}/secrets/{children.REPORT_TOKEN}"
    field = {"path": SETTINGS_FILE, "fieldRef": {"fieldPath": f"metadata.annotations['{labels.SETTINGS}']"}}
    _mount(pod, trainer, _SETTINGS, {"downwardAPI": {"items": [field]}}, f"{FOLDER}/settings")
    own |= _mount_storages(job, pod, trainer)
    _set_environment(trainer, {**_identity(job, incarnation), **own})
    _mount_secrets(job, pod, trainer, children.LINK_SECRET, children.REPORT_TOKEN)
    return pod


def settings(job: SwarmTrainingJob) -> str:
    """What the synchronizer's file of settings says now."""
    return Settings.of(job).model_dump_json(by_alias=True)


def default_synchronizer(job: SwarmTrainingJob) -> PodTemplate:
    """The particles' image, with the rights that it needs to be pulled and to run, and none of their resources."""
    spec = job.spec.particles.template.spec
    trainer = _trainer(spec)
    container = {
        "name": TRAINER_CONTAINER,
        **_only(trainer, "image", "imagePullPolicy", "securityContext"),
        "resources": {"requests": dict(SYNCHRONIZER_REQUESTS)},
    }
    return PodTemplate(spec={**_only(spec, "imagePullSecrets", "securityContext"), "containers": [container]})


def _pod(
    job: SwarmTrainingJob, name: str, template: PodTemplate, own: Mapping[str, str], avoid: Sequence[str]
) -> tuple[_Object, _Object]:
    """The pod, and in it the container that trains."""
    spec: _Object = copy.deepcopy(template.spec)
    metadata: _Object = copy.deepcopy(_only(template.metadata, "labels", "annotations"))
    metadata |= {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": labels.merged(metadata.get("labels") or {}, own),
        "ownerReferences": [labels.owner(job)],
    }
    spec |= {"restartPolicy": "Never", "hostname": name, "subdomain": children.service_name(job)}
    _default(spec, "automountServiceAccountToken", False)
    context = spec["securityContext"] = dict(spec.get("securityContext") or {})
    _default(context, "seccompProfile", {"type": "RuntimeDefault"})
    if avoid:
        spec["affinity"] = keep_off(spec.get("affinity"), avoid)
    for container in (*spec["containers"], *(spec.get("initContainers") or ())):
        _forbid_escalation(container)
    trainer = _trainer(spec)
    _default(trainer, "terminationMessagePolicy", "FallbackToLogsOnError")
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}, trainer


def _trainer(spec: _Object) -> _Object:
    containers: list[_Object] = spec["containers"]
    # The API server refuses a job in which none of several is named; the first is as good as any other then.
    return containers[training_container([str(container.get("name")) for container in containers]) or 0]


def _forbid_escalation(container: _Object) -> None:
    """Unless the template says otherwise, or asks for rights that cannot be had without."""
    context = dict(container.get("securityContext") or {})
    added = (context.get("capabilities") or {}).get("add") or ()
    if not context.get("privileged") and not {"SYS_ADMIN", "CAP_SYS_ADMIN"} & set(added):
        _default(context, "allowPrivilegeEscalation", False)
        container["securityContext"] = context


def _identity(job: SwarmTrainingJob, incarnation: int) -> dict[str, str | _Object]:
    return {
        env.JOB_NAME: job.metadata.name,
        env.JOB_UID: job.metadata.uid,
        env.NAMESPACE: job.metadata.namespace,
        env.INCARNATION: str(incarnation),
        env.INSTANCE_UID: {"fieldRef": {"fieldPath": "metadata.uid"}},
        env.SECRET_FILE: f"{FOLDER}/secrets/{children.LINK_SECRET}",
    }


def _set_environment(container: _Object, values: Mapping[str, str | _Object]) -> None:
    """Before the template's own, so that those can refer to these as $(SWARM_...)."""
    own = [
        {"name": name, "value": value} if isinstance(value, str) else {"name": name, "valueFrom": value}
        for name, value in values.items()
    ]
    container["env"] = [*own, *(container.get("env") or ())]


def _mount_secrets(job: SwarmTrainingJob, pod: _Object, container: _Object, *keys: str) -> None:
    items = [{"key": key, "path": key} for key in keys]
    source = {"secret": {"secretName": children.secret_name(job), "items": items}}
    _mount(pod, container, _SECRETS, source, f"{FOLDER}/secrets", readOnly=True)


def _mount_storages(job: SwarmTrainingJob, pod: _Object, container: _Object) -> dict[str, str]:
    """Returns the variables that say where they are."""
    volumes: dict[str, str] = {}
    for what, storage in children.storages(job).items():
        claim = children.claim_name(job, what)
        # A kubelet never gets ready with a pod that has one claim under two names.
        name = volumes.setdefault(claim, f"swarm-{what}")
        source = {"persistentVolumeClaim": {"claimName": claim}}
        _mount(pod, container, name, source, f"{FOLDER}/{what}", subPath=storage.folder(job.metadata.name))
    return {_STORED[what]: f"{FOLDER}/{what}" for what in children.storages(job)}


def _mount(pod: _Object, container: _Object, name: str, source: _Object, path: str, **more: Any) -> None:
    """What is there already under this name is mounted once more."""
    volumes = pod["spec"].get("volumes") or ()
    if name not in (volume["name"] for volume in volumes):
        pod["spec"]["volumes"] = [*volumes, {"name": name, **source}]
    mounts = container.get("volumeMounts") or ()
    container["volumeMounts"] = [*mounts, {"name": name, "mountPath": path, **more}]


def _publish_ports(container: _Object) -> None:
    """For whoever reads the pod, such as a scraper of metrics; a port that the template names is left alone."""
    ports = list(container.get("ports") or ())
    taken = {port.get("containerPort") for port in ports}
    wanted = {"swarm": env.PORT, "report": env.REPORT_PORT}
    ports += [{"name": name, "containerPort": port} for name, port in wanted.items() if port not in taken]
    container["ports"] = ports


def _default(target: _Object, key: str, value: Any) -> None:
    """Null is the same as absent, as to the API server."""
    if target.get(key) is None:
        target[key] = value


def _only(source: Mapping[str, Any], *keys: str) -> _Object:
    return {key: source[key] for key in keys if source.get(key) is not None}
