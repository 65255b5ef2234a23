"""Torch on the workers without an image of six gigabytes: every container there sees the packages of this Python.

The workers mount the folder (`cluster.kind.python_environment`); here it is added to what their container runtime
mounts into every container, so that a manifest needs no volume for it and is the same as on any other cluster.
"""

import sys

from cluster import Cluster, CommandError, UnavailableError, docker, images

_SHOW = """
cd /etc/containerd
folder=/opt/site-packages
mount=$(jq -nc --arg f $folder '{destination: $f, source: $f, type: "bind", options: ["rbind", "ro"]}')
jq -e --argjson m "$mount" '.mounts | index($m)' cri-base.json > /dev/null && exit 0
jq --argjson m "$mount" '.mounts += [$m]' cri-base.json > cri-base.new
mv cri-base.new cri-base.json
systemctl restart containerd
"""


def base_image() -> str:
    """Whose Python can import them.

    Raises:
        UnavailableError: There is none; without a registry images have Debian's Python.
    """
    image = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim-bookworm"
    if image != images.PYTHON and docker.mode() is docker.Mode.OFFLINE:
        version = images.PYTHON.removeprefix("python:").partition("-")[0]
        raise UnavailableError(
            f"without a container registry containers have Python {version}, and cannot use this one's packages: "
            f"run the tests with Python {version}, or start a Docker engine that reaches a registry"
        )
    return image


def gone(cluster: Cluster) -> bool:
    """Whether they were removed since the cluster was made: a folder that was made anew is not the one it mounted."""
    try:
        for worker in cluster.workers:
            cluster.docker("exec", worker, "test", "-d", "/opt/site-packages/torch")
    except CommandError:
        return True
    return False


def show(cluster: Cluster) -> None:
    """Let all containers that start on the workers from now on see them."""
    for worker in cluster.workers:
        cluster.docker("exec", worker, "bash", "-ec", _SHOW)
