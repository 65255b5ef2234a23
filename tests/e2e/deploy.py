"""A kind cluster with this repository's images and the operator in it, as `helm install` puts it there."""

import tomllib
from pathlib import Path

from cluster import Cluster, CommandError, console, kind
from e2e import packages

ROOT = Path(__file__).parents[2]
NAMESPACE = "swarm-system"
"""Of the operator."""
RELEASE = "swarm"
DEPLOYMENT = "swarm-operator"
TRAINER = "swarm-training/trainer"

_HERE = Path(__file__).parent
_OPERATOR = "swarm-training/operator"
_THIN = f"{TRAINER}:thin"
_KEEP = "swarm.training/image"


def up() -> Cluster:
    """The cluster, made if there is none; images and operator are those of the checkout as it is now.

    Raises:
        UnavailableError: no cluster can be had on this machine.
        CommandError: a step failed.
    """
    base = packages.base_image()
    cluster = kind.up([kind.python_environment()])
    if packages.gone(cluster):
        kind.down()
        cluster = kind.up([kind.python_environment()])
    packages.show(cluster)
    with console.step("building the operator's image", 30):
        cluster.docker.build(ROOT, _operator(), target="operator")
        cluster.load_image(_operator())
    with console.step("building the trainer's image and bringing both onto the nodes", 15):
        _build_trainer(cluster, base)
    with console.step("installing the operator", 10):
        install(cluster)
    return cluster


def install(cluster: Cluster, *flags: str) -> None:
    """Install the chart, or upgrade it; returns when the operator is ready."""
    chart = ROOT / "charts" / "swarm-operator"
    digest = cluster.docker("image", "inspect", "--format={{.Id}}", _operator()).strip()
    # Under the same tag the operator is replaced where its image is another one.
    values = [f"--values={_HERE / 'operator.yaml'}", f"--set=podAnnotations.{_escaped(_KEEP)}={digest}"]
    where = [f"--namespace={NAMESPACE}", "--create-namespace"]
    command = ["helm", "upgrade", "--install", RELEASE, str(chart), *where]
    try:
        console.output([*command, *values, *flags, "--wait", "--timeout=120s"], env=cluster.environment, timeout=150)
    except CommandError:
        print(cluster.kubectl("logs", f"--namespace={NAMESPACE}", f"deployment/{DEPLOYMENT}", "--tail=20"))
        raise


def version() -> str:
    """Of the package, and of the images."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _operator() -> str:
    return f"{_OPERATOR}:{version()}"


def _build_trainer(cluster: Cluster, base: str) -> None:
    cluster.docker.build(ROOT, _THIN, file=_HERE / "Dockerfile", arguments={"BASE": base})
    cluster.load_image(_THIN, nodes=cluster.workers)
    # Only on the nodes: in the engine this name is for the real one.
    tag = f"docker.io/{TRAINER}:{version()}"
    for worker in cluster.workers:
        cluster.docker(
            "exec", worker, "ctr", "--namespace=k8s.io", "images", "tag", "--force", f"docker.io/{_THIN}", tag
        )


def _escaped(key: str) -> str:
    return key.replace(".", "\\.")
