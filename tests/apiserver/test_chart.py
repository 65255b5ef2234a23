"""The chart through the life of a release, on a real API server."""

import base64
import json
import subprocess

import pytest
import yaml

from apiserver.jobs import Jobs
from apiserver.manifests import a_job
from cluster import binaries
from cluster.apiserver import ApiServer
from support.api_server import CRD

CHART = CRD.parents[1] / "charts" / "swarm-operator"
NAMESPACE = "swarm-system"
OPERATOR = f"system:serviceaccount:{NAMESPACE}:swarm-operator"


class Release:
    """The release `swarm`."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server
        self.notes = ""
        """What the user was told at the last installation."""

    def helm(self, *arguments: str) -> str:
        command = [binaries.path("helm"), *arguments, "--namespace", NAMESPACE, "--kubeconfig", self.server.kubeconfig]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def install(self, *values: str) -> None:
        told = self.helm("upgrade", "--install", "swarm", str(CHART), "--create-namespace", *values)
        self.notes = told.partition("NOTES:\n")[2]

    def key(self) -> bytes:
        secret = json.loads(
            self.server.kubectl("get", "secret", "swarm-operator-key", f"--namespace={NAMESPACE}", "--output=json")
        )
        return base64.b64decode(secret["data"]["key"])

    def may(self, verb: str, what: str, namespace: str = "default") -> bool:
        """Whether the operator's ServiceAccount may do so."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {"user": OPERATOR, "groups": [], "resourceAttributes": _attributes(verb, what, namespace)},
        }
        arguments = ("create", "--filename=-", "--output=json")
        return json.loads(self.server.kubectl(*arguments, stdin=json.dumps(review)))["status"]["allowed"]


def _attributes(verb, what, namespace):
    resource, _, subresource = what.partition("/")
    group = {"swarmtrainingjobs": "swarm.training", "leases": "coordination.k8s.io"}.get(resource, "")
    return {"verb": verb, "resource": resource, "subresource": subresource, "group": group, "namespace": namespace}


@pytest.fixture(scope="module")
def release(a_server):
    """Installed with what is off by default; on a server of its own, since the definition comes with it."""
    with a_server() as server:
        found = Release(server)
        found.install()
        yield found


@pytest.mark.parametrize(
    ("verb", "what"),
    [
        ("watch", "swarmtrainingjobs"),
        ("patch", "swarmtrainingjobs/status"),
        *((verb, "pods") for verb in ("list", "watch", "create", "patch", "delete")),
        *((verb, "services") for verb in ("create", "patch")),
        ("create", "secrets"),
        ("create", "persistentvolumeclaims"),
        ("create", "events"),
        ("watch", "nodes"),
    ],
)
def test_the_operator_may_do_what_it_must(release, verb, what):
    assert release.may(verb, what)


@pytest.mark.parametrize(
    ("verb", "what", "namespace"),
    [
        *((verb, "secrets", "default") for verb in ("get", "list", "patch", "delete")),
        ("get", "secrets", NAMESPACE),
        ("patch", "swarmtrainingjobs", "default"),
        ("delete", "swarmtrainingjobs", "default"),
        ("delete", "persistentvolumeclaims", "default"),
        ("create", "pods/exec", "default"),
        ("get", "pods/proxy", "default"),
        ("patch", "nodes", ""),
        ("get", "leases", "default"),
    ],
)
def test_and_nothing_else(release, verb, what, namespace):
    assert not release.may(verb, what, namespace)


def test_it_may_look_at_the_leases_of_nodes(release):
    assert release.may("get", "leases", "kube-node-lease")


def test_users_who_may_edit_a_namespace_may_edit_its_jobs(release):
    view, edit = (
        json.loads(release.server.kubectl("get", "clusterrole", f"swarm-operator-{role}", "--output=json"))
        for role in ("view", "edit")
    )
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    assert edit["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-edit"] == "true"


def test_the_notes_lead_to_a_first_job(release):
    manifest = yaml.safe_load(release.notes.partition("<<END\n")[2].partition("    END\n")[0])
    stored, complaint = Jobs(release.server.kubeconfig).create(manifest, dry_run=True)
    assert not complaint
    assert stored["metadata"]["name"] == "mnist"
    assert "kubectl get stj --watch" in release.notes


def test_every_value_makes_objects_that_the_server_takes(release):
    values = {
        "extraEnv": [{"name": "A", "value": "b"}],
        "extraArgs": ["--more"],
        "extraVolumes": [{"name": "v", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "v", "mountPath": "/v"}],
        "imagePullSecrets": [{"name": "registry"}],
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "commonLabels": {"e": "f"},
        "nodeSelector": {"g": "h"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {}}
        ],
        "priorityClassName": "system-cluster-critical",
        "metrics": {"annotations": {"i": "j"}},
        "serviceAccount": {"annotations": {"k": "l"}},
        "rbac": {"reportThroughProxy": True},
        "watchNamespaces": ["default", "kube-public"],
        "fullnameOverride": "other",
        "crds": {"enabled": False},
    }
    version = json.loads(release.server.kubectl("version", "--output=json"))["serverVersion"]["gitVersion"]
    options = [f"--set-json={name}={json.dumps(value)}" for name, value in values.items()]
    objects = release.helm("template", "swarm", str(CHART), f"--kube-version={version}", *options)
    release.server.kubectl("create", "--dry-run=server", "--validate=strict", "--filename=-", stdin=objects)


def test_jobs_and_what_they_need_outlive_upgrades_and_the_release(release):
    jobs = Jobs(release.server.kubeconfig)
    jobs.create(a_job(name="long"))
    key = release.key()
    assert len(key) >= 32

    release.install("--set=logFormat=plain")
    assert release.key() == key

    release.helm("uninstall", "swarm")
    assert jobs.get("long")["spec"]["algorithm"]["name"] == "PSOPS"
    release.install()
    assert release.key() == key
    assert jobs.get("long")
