"""What the plan and the operator need to know of a pod, read once from what the API server says of it."""

import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from swarm_api import env
from swarm_operator.backends.kubernetes import labels
from swarm_operator.plan.facts import Member, Phase, Role
from swarm_operator.plan.times import unix

NODE_LOST: Final = "NodeLost"
"""Reason of a pod whose node is gone."""

_REJECTIONS: Final = frozenset(
    {
        "AppArmor",
        "InitContainerRestartPolicyForbidden",
        "InsufficientResourceError",
        "NodeAffinity",
        "NodeName",
        "NodePorts",
        "NodeShutdown",
        "NodeUnschedulable",
        "PodOSNotSupported",
        "PodOSSelectorNodeLabelDoesNotMatch",
        "SysctlForbidden",
        "TaintToleration",
        "TopologyAffinityError",
        "UnexpectedAdmissionError",
        "VolumeAttachmentLimitExceeded",
    }
)
"""Reasons with which a kubelet turns a pod away; the scheduler knew its node worse than the node itself."""
_NODES_FAULT: Final = frozenset({NODE_LOST, "Preempting", "Shutdown", "Terminated", "NodeShutdown"})
"""Reasons of a failed pod for which neither the pod nor the user is to blame."""
_LOST_CONTAINER: Final = "ContainerStatusUnknown"
"""A kubelet's word for a container that was not there any more when it came back."""
_STARTING: Final = frozenset({"ContainerCreating", "PodInitializing"})
_SIGNALS: Final = frozenset(member.value for member in signal.Signals)
_ENDED: Final = ("Succeeded", "Failed")

_Object = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Pod:
    """What is kept of a pod that has the labels of a job's child."""

    name: str
    job_uid: str
    """Of the job that it belongs to, there or not; empty: it was orphaned, or nobody's from the beginning."""
    version: int
    """Newer reads have a higher one."""
    member: Member
    ip: str = ""
    settings: str = ""
    """What a synchronizer was told last."""
    lingers: bool = False
    """Its training container ended, and other containers keep the pod running."""
    rejected: bool = False
    """Its node turned it away."""


def read(pod: _Object) -> Pod | None:
    """None for a pod whose labels are no child's; what they say of its job counts only if that owns it."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    found = metadata.get("labels") or {}
    uid, role = found.get(labels.JOB_UID, ""), found.get(labels.ROLE)
    owned = any(owner.get("uid") == uid and owner.get("controller") for owner in metadata.get("ownerReferences") or ())
    index, incarnation = found.get(labels.PARTICLE_INDEX, "0"), found.get(labels.INCARNATION, "")
    if not (role in tuple(Role) and index.isdecimal() and incarnation.isdecimal()):
        return None
    trainer = _training_status(pod)
    rejected = (
        status.get("phase") == "Failed" and trainer.get("state", {}).get("terminated") is None and _turned_away(status)
    )
    member = Member(
        role=Role(role),
        index=int(index),
        incarnation=int(incarnation),
        uid=metadata["uid"],
        created=unix(metadata["creationTimestamp"]),
        node=pod["spec"].get("nodeName") or "",
        deleting=metadata.get("deletionTimestamp") is not None,
        **_course(status, trainer, rejected=rejected),
    )
    return Pod(
        name=metadata["name"],
        job_uid=uid if owned else "",
        version=int(metadata.get("resourceVersion") or 0),
        member=member,
        ip=status.get("podIP") or "",
        settings=(metadata.get("annotations") or {}).get(labels.SETTINGS, ""),
        lingers=member.ended_phase and status.get("phase") not in _ENDED,
        rejected=rejected,
    )


def _training_status(pod: _Object) -> _Object:
    """Status of the container into which the operator put its variables, whatever else was injected since."""
    for container in pod["spec"].get("containers") or ():
        if any(variable.get("name") == env.INCARNATION for variable in container.get("env") or ()):
            for status in (pod.get("status") or {}).get("containerStatuses") or ():
                if status.get("name") == container.get("name"):
                    return dict(status)
    return {}


def _course(status: _Object, trainer: _Object, *, rejected: bool) -> dict[str, Any]:
    """The member's fields from phase to disrupted."""
    state = trainer.get("state") or {}
    terminated, running = state.get("terminated"), state.get("running")
    disruption = _condition(status, "DisruptionTarget", "True")
    blameless = rejected or disruption is not None or status.get("reason") in _NODES_FAULT
    if terminated is not None:
        code = _exit_code(terminated)
        return {
            "phase": Phase.SUCCEEDED if code == 0 else Phase.FAILED,
            "started": _time(terminated.get("startedAt")),
            "ended": _time(terminated.get("finishedAt")),
            "exit_code": code,
            "disrupted": blameless or terminated.get("reason") == _LOST_CONTAINER,
            **_why_ended(status, terminated, disruption, code),
        }
    if status.get("phase") in _ENDED:
        failed = _failed_init(status) or {}
        last_code = _exit_code(failed) if failed else None
        return {
            "phase": Phase(status["phase"]),
            "ended": _time(failed.get("finishedAt")) or _last_transition(status),
            "exit_code": last_code,
            "disrupted": blameless,
            **_why_ended(status, failed, disruption, last_code),
        }
    if running is not None:
        return {"phase": Phase.RUNNING, "started": _time(running.get("startedAt"))}
    reason, message = _why_pending(status, trainer)
    return {"phase": Phase.PENDING, "reason": reason, "message": message}


def _exit_code(terminated: _Object) -> int:
    """Negative for a signal, which a container's exit code shows as 128 and more."""
    code = int(terminated.get("exitCode") or 0)
    if terminated.get("signal"):
        return -int(terminated["signal"])
    return -(code - 128) if code - 128 in _SIGNALS else code


def _why_ended(status: _Object, terminated: _Object, disruption: _Object | None, code: int | None) -> dict[str, str]:
    if disruption is not None:
        return {"reason": disruption.get("reason") or "", "message": disruption.get("message") or ""}
    if status.get("reason"):
        return {"reason": status["reason"], "message": status.get("message") or ""}
    reason = terminated.get("reason") or ""
    killed = code is not None and code < 0 and reason == "Error"
    return {"reason": "Killed" if killed else reason, "message": terminated.get("message") or ""}


def _why_pending(status: _Object, trainer: _Object) -> tuple[str, str]:
    """The scheduler's words, or why the container cannot start: the first that is more than `it is starting`."""
    unscheduled = _condition(status, "PodScheduled", "False")
    if unscheduled is not None:
        return unscheduled.get("reason") or "Unschedulable", unscheduled.get("message") or ""
    reasons = [
        (waiting.get("reason") or "", waiting.get("message") or "")
        for container in (*(status.get("initContainerStatuses") or ()), trainer)
        if (waiting := (container.get("state") or {}).get("waiting"))
    ]
    return next((found for found in reasons if found[0] not in _STARTING), reasons[-1] if reasons else ("", ""))


def _failed_init(status: _Object) -> _Object | None:
    """How the init container ended that kept the others from starting."""
    for container in status.get("initContainerStatuses") or ():
        terminated: _Object | None = (container.get("state") or {}).get("terminated")
        if terminated is not None and _exit_code(terminated) != 0:
            return {**terminated, "reason": "InitContainerFailed"}
    return None


def _turned_away(status: _Object) -> bool:
    reason = str(status.get("reason") or "")
    told = str(status.get("message") or "").startswith("Pod was rejected")
    return told or reason.startswith("OutOf") or reason in _REJECTIONS


def _condition(status: _Object, kind: str, value: str) -> _Object | None:
    return next(
        (each for each in status.get("conditions") or () if each.get("type") == kind and each.get("status") == value),
        None,
    )


def _last_transition(status: _Object) -> float | None:
    return max(_transitions(status), default=None)


def _transitions(status: _Object) -> Iterator[float]:
    for condition in status.get("conditions") or ():
        moment = _time(condition.get("lastTransitionTime"))
        if moment is not None:
            yield moment


def _time(text: str | None) -> float | None:
    return None if text is None else unix(text)
