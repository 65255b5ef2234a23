"""Manifests that the API server accepts, and those that it refuses, with what it says."""

import copy
import re
from collections.abc import Mapping
from typing import Any

LEFT_OUT = object()
TEMPLATE = "spec.particles.template"
POD = f"{TEMPLATE}.spec"
OUTPUT = "spec.synchronizer.output"
CHECKPOINT = "spec.synchronizer.checkpoint"


def a_pod(**fields: Any) -> dict[str, Any]:
    """A pod's spec."""
    return {"containers": [{"name": "main", "image": "mine", "command": ["python", "train.py"]}], **fields}


def a_job(changes: Mapping[str, Any] | None = None, *, name: str = "job") -> dict[str, Any]:
    """A small job with other values at some paths, such as `spec.particles.replicas`; LEFT_OUT removes a field."""
    job: dict[str, Any] = {
        "apiVersion": "swarm.training/v1alpha1",
        "kind": "SwarmTrainingJob",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"algorithm": {"name": "PSOPS"}, "particles": {"template": {"spec": a_pod()}}},
    }
    for path, value in (changes or {}).items():
        *parents, last = [int(step) if step.isdigit() else step for step in re.split(r"[.\[\]]+", path.rstrip("]"))]
        place: Any = job
        for step in parents:
            place = place[step] if isinstance(step, int) else place.setdefault(step, {})
        if value is LEFT_OUT:
            del place[last]
        else:
            place[last] = copy.deepcopy(value)
    return job


def a_claim(**fields: Any) -> dict[str, Any]:
    """What `volumeClaim` holds."""
    return {"resources": {"requests": {"storage": "10Gi"}}, **fields}


ACCEPTED: dict[str, dict[str, Any]] = {
    "the least": {},
    "every algorithm's settings left to their defaults": {"spec.algorithm.psops": {}},
    "another algorithm": {"spec.algorithm": {"name": "EASGD", "easgd": {"mode": "Asynchronous"}}},
    "an algorithm without settings": {"spec.algorithm": {"name": "LocalSGD", "localSGD": {}}},
    "whole numbers for real ones": {"spec.algorithm.psops": {"social": 1, "temperature": 2}},
    "null for what is left out": {"spec.particles.maxReplicas": None, OUTPUT: None},
    "a quorum of two": {"spec.sync.quorum": 2},
    "a quorum of all": {"spec.sync.quorum": "100%"},
    "bounds that meet": {
        "spec.particles.replicas": 3,
        "spec.particles.minReplicas": 3,
        "spec.particles.maxReplicas": 3,
    },
    "the largest swarm": {"spec.particles.replicas": 1024},
    "the longest name": {"metadata.name": "j" + 39 * "0"},
    "a name of one letter": {"metadata.name": "j"},
    "a sidecar beside the trainer": {f"{POD}.containers": [{"name": "logs"}, {"name": "trainer"}]},
    "the policy that holds anyway": {f"{POD}.restartPolicy": "Never"},
    "a pod with all kinds of fields": {
        TEMPLATE: {
            "metadata": {"labels": {"team": "vision"}, "annotations": {"a/b": "c"}},
            "spec": a_pod(
                initContainers=[{"name": "data", "restartPolicy": "Always", "env": [{"name": "A", "value": "1"}]}],
                affinity={"nodeAffinity": {"preferred": [{"weight": 1, "preference": {"matchFields": []}}]}},
                volumes=[{"name": "v", "emptyDir": {}}],
                nodeSelector={"gpu": "a100"},
                fieldOfTheFuture={"deep": [{"er": [1, 2.5, None, "x"]}]},
            ),
        }
    },
    "a synchronizer of one's own": {"spec.synchronizer.template": {"spec": a_pod()}},
    "an existing claim": {OUTPUT: {"existingClaim": "models", "path": "mnist/first.try"}},
    "a claim of its own": {OUTPUT: {"volumeClaim": a_claim(storageClassName="", accessModes=["ReadWriteMany"])}},
    "a size in bytes": {OUTPUT: {"volumeClaim": {"resources": {"requests": {"storage": 1000}}}}},
    "checkpoints on an existing claim": {CHECKPOINT: {"existingClaim": "models", "path": "a/b"}},
    "checkpoints on a claim of their own": {CHECKPOINT: {"volumeClaim": a_claim(), "intervalSeconds": 1, "keep": 100}},
    "model and checkpoints on one claim": {
        OUTPUT: {"existingClaim": "models"},
        CHECKPOINT: {"existingClaim": "models"},
    },
    "suspended from the beginning": {"spec.suspend": True},
}
"""Changes of `a_job`."""

REJECTED: dict[str, tuple[dict[str, Any], str]] = {
    "name: a digit first": ({"metadata.name": "1st"}, "metadata.name must start with a letter"),
    "name: a dot": ({"metadata.name": "a.b"}, "metadata.name must start with a letter"),
    "name: too long": ({"metadata.name": 41 * "j"}, "metadata.name must have at most 40 characters"),
    "no spec": ({"spec": LEFT_OUT}, "spec: Required value"),
    "no algorithm": ({"spec.algorithm": LEFT_OUT}, "spec.algorithm: Required value"),
    "algorithm: unknown": (
        {"spec.algorithm.name": "Adam"},
        'spec.algorithm.name: Unsupported value: "Adam": supported values: "PSOPS"',
    ),
    "algorithm: settings of another": (
        {"spec.algorithm": {"name": "EASGD", "psops": {}}},
        "psops is set, but name is another algorithm: remove psops, or set name: PSOPS",
    ),
    "algorithm: settings of two": (
        {"spec.algorithm": {"name": "PSOPS", "psops": {}, "localSGD": {}}},
        "localSGD is set, but name is another algorithm: remove localSGD, or set name: LocalSGD",
    ),
    "syncPeriod: none": ({"spec.algorithm.syncPeriod": 0}, "syncPeriod in body should be greater than or equal to 1"),
    "syncPeriod: text": ({"spec.algorithm.syncPeriod": "ten"}, "syncPeriod"),
    "inertia: keeps growing": ({"spec.algorithm.psops.inertia": 1}, "inertia in body should be less than 1"),
    "temperature: zero": ({"spec.algorithm.psops.temperature": 0}, "temperature in body should be greater than 0"),
    "seed: negative": ({"spec.seed": -1}, "seed in body should be greater than or equal to 0"),
    "seed: too large": ({"spec.seed": 2**31}, "spec.seed"),
    "link: unknown": ({"spec.sync.link": "NCCL"}, 'supported values: "Swarm", "Gloo"'),
    "quorum: more than all": ({"spec.sync.quorum": "101%"}, "quorum in body should match"),
    "quorum: nobody": ({"spec.sync.quorum": 0}, "quorum in body should be greater than or equal to 1"),
    "replicas: none": ({"spec.particles.replicas": 0}, "replicas in body should be greater than or equal to 1"),
    "replicas: too many": ({"spec.particles.replicas": 1025}, "replicas in body should be less than or equal to 1024"),
    "replicas: below the floor": (
        {"spec.particles.minReplicas": 3},
        "replicas must be at least minReplicas: raise replicas or lower minReplicas",
    ),
    "replicas: above the ceiling": (
        {"spec.particles.maxReplicas": 1},
        "replicas must be at most maxReplicas: lower replicas or raise maxReplicas",
    ),
    "suspend: text": ({"spec.suspend": "yes please"}, "spec.suspend"),
    "template: none": ({TEMPLATE: LEFT_OUT}, "spec.particles.template: Required value"),
    "template: no spec": ({TEMPLATE: {}}, "spec.particles.template.spec: Required value"),
    "template: no containers": ({f"{POD}.containers": []}, "should have at least 1 items"),
    "template: nobody trains": (
        {f"{POD}.containers": [{"name": "a"}, {"name": "b"}]},
        "one of several containers must be named trainer: the one that trains",
    ),
    "template: a variable of ours": (
        {f"{POD}.containers[0].env": [{"name": "A"}, {"name": "SWARM_JOB_NAME", "value": "x"}]},
        "variables named SWARM_* are set by the operator: remove it or rename it",
    ),
    "template: restarts by itself": (
        {f"{POD}.restartPolicy": "OnFailure"},
        "restartPolicy must be Never: remove it, for a particle that ended is started again as a new pod",
    ),
    "template: hostname": ({f"{POD}.hostname": "h"}, "hostname is set by the operator: remove it"),
    "template: subdomain": ({f"{POD}.subdomain": "s"}, "subdomain is set by the operator: remove it"),
    "the synchronizer's template is held to the same": (
        {"spec.synchronizer.template": {"spec": a_pod(restartPolicy="Always")}},
        "spec.synchronizer.template.spec.restartPolicy",
    ),
    "output: nowhere": ({OUTPUT: {}}, "needs either existingClaim or volumeClaim: set one of them"),
    "output: two places": (
        {OUTPUT: {"existingClaim": "models", "volumeClaim": a_claim()}},
        "needs either existingClaim or volumeClaim: set one of them",
    ),
    "output: a claim without a name": ({OUTPUT: {"existingClaim": ""}}, "existingClaim"),
    "output: outside": (
        {OUTPUT: {"existingClaim": "models", "path": "a/../../b"}},
        "must be a relative path without '..', such as models/mnist",
    ),
    "output: absolute": ({OUTPUT: {"existingClaim": "models", "path": "/a"}}, "must be a relative path"),
    "output: no size": ({OUTPUT: {"volumeClaim": {}}}, "volumeClaim.resources: Required value"),
    "output: a size in words": (
        {OUTPUT: {"volumeClaim": {"resources": {"requests": {"storage": "lots"}}}}},
        "storage in body should match",
    ),
    "checkpoint: nowhere": ({CHECKPOINT: {"keep": 2}}, "needs either existingClaim or volumeClaim: set one of them"),
    "checkpoint: two places": (
        {CHECKPOINT: {"existingClaim": "models", "volumeClaim": a_claim()}},
        "needs either existingClaim or volumeClaim: set one of them",
    ),
    "checkpoint: outside": ({CHECKPOINT: {"existingClaim": "c", "path": "../b"}}, "must be a relative path"),
    "checkpoint: all the time": (
        {CHECKPOINT: {"existingClaim": "c", "intervalSeconds": 0}},
        "intervalSeconds in body should be greater than or equal to 1",
    ),
    "checkpoint: none kept": (
        {CHECKPOINT: {"existingClaim": "c", "keep": 0}},
        "keep in body should be greater than or equal to 1",
    ),
    "output: unknown access": ({OUTPUT: {"volumeClaim": a_claim(accessModes=["Write"])}}, 'supported values: "ReadWri'),
}
"""Changes of `a_job`, and what is said of them."""
