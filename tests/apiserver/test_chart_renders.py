"""What the chart renders to. What an API server makes of it is in test_chart.py."""

import itertools
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cluster import binaries
from cluster.versions import KUBERNETES
from swarm_api.crd.definition import definition
from swarm_operator.cluster.config import parse

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "swarm-operator"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
readme = runpy.run_path(str(ROOT / "charts" / "readme.py"))


@pytest.fixture(scope="module")
def helm():
    """Runs helm; returns what it prints."""
    built = binaries.folder() / "helm"
    program = str(built) if built.exists() else shutil.which("helm")
    if program is None:
        pytest.skip("no helm here: tests/apiserver builds one")

    def run(*arguments, fails=False):
        done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture(scope="module")
def rendered(helm):
    """The objects by kind and name, for values like `metrics.port=1`; `None` in place of them for an error."""

    def render(*values, fails=False):
        options = itertools.chain.from_iterable(("--set-json", value) for value in values)
        version = f"--kube-version={KUBERNETES}"
        text = helm("template", "swarm", CHART, "--namespace=swarm-system", version, *options, fails=fails)
        if fails:
            return text
        return {(found["kind"], found["metadata"]["name"]): found for found in yaml.safe_load_all(text) if found}

    return render


def the(objects, kind):
    """The only one of its kind."""
    (found,) = (found for (its_kind, _), found in objects.items() if its_kind == kind)
    return found


def container(objects):
    (found,) = the(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return found


def test_it_has_no_mistakes(helm):
    helm("lint", "--strict", CHART, f"--kube-version={KUBERNETES}")


def test_the_definition_stays_when_the_chart_goes(rendered):
    crd = the(rendered(), "CustomResourceDefinition")
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert crd == definition()


def test_the_operator_runs_with_no_more_than_it_needs(rendered):
    pod = the(rendered(), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 65532
    assert container(rendered())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container(rendered())["resources"]["requests"].keys() == {"cpu", "memory"}
    assert the(rendered(), "Deployment")["spec"]["strategy"] == {"type": "Recreate"}


def rules(objects, role="ClusterRole"):
    """(resource, verb) of every right of the operator's own roles."""
    names = ("swarm-operator", "swarm-operator-cluster")
    found = [
        rule
        for (kind, name), each in objects.items()
        if (kind, name in names) == (role, True)
        for rule in each["rules"]
    ]
    return {(resource, verb) for rule in found for resource in rule["resources"] for verb in rule["verbs"]}


def test_no_right_is_given_away(rendered):
    found = rules(rendered())
    assert not [right for right in found if "*" in "".join(right)]
    assert {verb for resource, verb in found if resource == "secrets"} == {"create"}
    assert {verb for resource, verb in found if resource == "swarmtrainingjobs"} == {"get", "list", "watch"}
    assert "pods/proxy" not in {resource for resource, _ in found}
    proxied = rendered("rbac.reportThroughProxy=true")
    assert ("pods/proxy", "get") in rules(proxied)
    assert "--reports=proxy" in container(proxied)["args"]
    assert rules(rendered(), "Role") == {("leases", "get")}


def test_rights_end_at_the_namespaces_that_are_watched(rendered):
    everywhere = {name for kind, name in rendered() if kind == "ClusterRoleBinding"}
    assert everywhere == {"swarm-operator", "swarm-operator-cluster"}
    objects = rendered('watchNamespaces=["a"]')
    assert {name for kind, name in objects if kind == "ClusterRoleBinding"} == {"swarm-operator-cluster"}
    binding = objects["RoleBinding", "swarm-operator"]
    assert binding["roleRef"]["name"] == "swarm-operator"
    assert "--namespace=a" in container(objects)["args"]


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ([], "swarm-training/operator:0.1.0"),
        (['image.registry="r:5000"', 'image.tag="2"'], "r:5000/swarm-training/operator:2"),
        (['image.digest="sha256:ab"', 'image.tag="2"'], "swarm-training/operator@sha256:ab"),
    ],
)
def test_the_image_can_come_from_anywhere(rendered, values, image):
    assert container(rendered(*values))["image"] == image


SWITCHES = {
    "crds.enabled": {"CustomResourceDefinition"},
    "metrics.enabled": {"Service"},
    "serviceAccount.create": {"ServiceAccount"},
    "rbac.create": {"ClusterRoleBinding", "RoleBinding", "Role"},
}


@pytest.mark.parametrize("switch", SWITCHES)
def test_what_is_switched_off_is_not_there(rendered, switch):
    with_it, without = ({kind for kind, _ in rendered(f"{switch}={value}")} for value in ("true", "false"))
    assert with_it - without == SWITCHES[switch]


def test_a_key_of_ones_own_takes_the_place_of_the_charts(rendered):
    objects = rendered('operatorKey.existingSecret="mine"')
    assert "Secret" not in {kind for kind, _ in objects}
    volumes = the(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["secret"]["secretName"] == "mine"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ("metrics.prt=1", "additional properties 'prt' not allowed"),
        ('logFormat="xml"', "value must be one of 'json', 'plain'"),
        ("livenessPort=0", "minimum: got 0, want 1"),
        ('watchNamespaces=[""]', "minLength"),
    ],
)
def test_a_wrong_value_is_refused(rendered, value, complaint):
    assert complaint in rendered(value, fails=True)


def test_the_operator_understands_its_arguments(rendered):
    switches = ('watchNamespaces=["a","b"]', "rbac.reportThroughProxy=true", 'logFormat="plain"', "metrics.port=9000")
    arguments = container(rendered(*switches))["args"]
    found = parse(arguments)
    assert (found.namespaces, found.proxied, found.log_format) == (("a", "b"), True, "plain")
    assert (found.metrics_port, found.liveness_port) == (9000, VALUES["livenessPort"])
    mounted = container(rendered())["volumeMounts"][0]
    assert (mounted["name"], found.key_file.parent.as_posix()) == ("key", mounted["mountPath"])
