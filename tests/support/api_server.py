"""What tests with a bare API server share: its programs are built once, and it is empty or not to be had."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import CommandError, UnavailableError, binaries
from cluster.apiserver import ApiServer

CRD = Path(__file__).parents[2] / "crds" / "swarm.training_swarmtrainingjobs.yaml"
PROGRAMS = ("etcd", "kube-apiserver", "kubeadm", "kubectl", "helm")


def build_programs(session: pytest.Session, folder: Path) -> None:
    """Build the programs before the first test of the folder, whose time is limited, and show how that goes on.

    Where it fails, `api_server` says so.
    """
    if session.config.option.collectonly or not any(folder in item.path.parents for item in session.items):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled(), contextlib.suppress(UnavailableError, CommandError):
        binaries.build(PROGRAMS)


@contextlib.contextmanager
def api_server(**options: Any) -> Iterator[ApiServer]:
    """An empty API server with these options of `ApiServer`, or the test is skipped."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(ApiServer(**options))
        except UnavailableError as error:
            pytest.skip(f"no API server here: {error}")
        yield server


def install_definition(server: ApiServer) -> None:
    """Let it know the custom resource."""
    server.kubectl("create", "--filename", CRD)
    server.kubectl("wait", "--for=condition=Established", "--timeout=20s", "--filename", CRD)
