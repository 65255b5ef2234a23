"""A cluster with the operator for the whole session, and for every test a namespace with one swarm."""

import contextlib
import itertools
import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster import Cluster, CommandError, UnavailableError, kind
from e2e import deploy
from e2e.kube import Kube, Object, story
from e2e.swarms import Swarm

TEST_SECONDS = 300
"""Of one test at most."""

_numbers = itertools.count(1)
_FOUND = pytest.StashKey["Found | Exception"]()
_RECOVERIES = pytest.StashKey[dict[str, Object]]()


@dataclass(frozen=True)
class Found:
    """Where the tests run."""

    operator: Kube
    """In the operator's namespace."""
    image: str
    """Of the trainer."""
    kind: Cluster | None
    """The one that the tests may harm; None: it is somebody else's."""
    ours: bool = False
    """Made by this session, which removes it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_here(item):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Make the cluster before the first test, whose time is limited, and show how that goes on."""
    if session.config.option.collectonly or not any(map(_is_here, session.items)):
        return
    capture = session.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        try:
            session.config.stash[_FOUND] = _find()
        except (UnavailableError, CommandError, ValueError) as error:
            session.config.stash[_FOUND] = error


def pytest_sessionfinish(session: pytest.Session) -> None:
    found = session.config.stash.get(_FOUND, None)
    if isinstance(found, Found) and found.ours:
        kind.down()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    recoveries = config.stash.get(_RECOVERIES, {})
    if not recoveries:
        return
    terminalreporter.section("seconds until the replacement contributed")
    phases = ("detect", "schedule", "start", "rejoin")
    terminalreporter.write_line("".join(f"{head:>10}" for head in (*phases, "in all")).rjust(72))
    for what, recovery in recoveries.items():
        found = [recovery.get(f"{phase}Seconds") for phase in phases]
        spans = [*found, sum(filter(None, found))]
        cells = "".join(f"{'-' if span is None else format(span, '.1f'):>10}" for span in spans)
        terminalreporter.write_line(f"{what:<22}{cells}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    swarm = getattr(item, "funcargs", {}).get("swarm")
    found = item.config.stash.get(_FOUND, None)
    if report.failed and report.when == "call" and swarm is not None and isinstance(found, Found):
        report.sections += story(swarm.kube, found.operator, deploy.DEPLOYMENT)
    return report


@pytest.fixture(scope="session")
def found(pytestconfig: pytest.Config) -> Found:
    """Where the tests run, or the reason why they cannot."""
    found = pytestconfig.stash[_FOUND]
    if isinstance(found, UnavailableError):
        pytest.skip(f"NO CLUSTER HERE, SO NOTHING OF KUBERNETES WAS TESTED END TO END: {found}")
    if isinstance(found, Exception):
        raise found
    return found


@pytest.fixture(scope="session")
def cluster(found: Found) -> Cluster:
    """The kind cluster, for tests that harm nodes."""
    if found.kind is None:
        pytest.skip("this test harms nodes, and the cluster is somebody else's")
    return found.kind


@pytest.fixture(scope="session")
def recoveries(pytestconfig: pytest.Config) -> dict[str, Object]:
    """Takes `status.recovery` by what had happened, for the summary."""
    return pytestconfig.stash.setdefault(_RECOVERIES, {})


@pytest.fixture
def operator(found: Found) -> Kube:
    """`kubectl` in the operator's namespace."""
    return found.operator


@pytest.fixture
def swarm(found: Found) -> Iterator[Swarm]:
    """A swarm to be started, in a namespace of its own."""
    name = f"e2e-{os.getpid()}-{next(_numbers)}"
    found.operator("create", "namespace", name)
    yield Swarm(found.operator.in_namespace(name), found.image)
    with contextlib.suppress(CommandError):
        found.operator("delete", "namespace", name, "--wait=false")


def _find() -> Found:
    image = os.environ.get("SWARM_E2E_TRAINER_IMAGE", f"{deploy.TRAINER}:{deploy.version()}")
    kubeconfig, context = os.environ.get("SWARM_E2E_KUBECONFIG"), os.environ.get("SWARM_E2E_CONTEXT")
    if kubeconfig is None:
        before = kind.current()
        made = before if before and os.environ.get("SWARM_E2E_REUSE") else deploy.up()
        return Found(Kube(deploy.NAMESPACE, made.environment), image, made, ours=before is None)
    if not context:
        raise ValueError(f"set SWARM_E2E_CONTEXT too: the context of {kubeconfig} in which the tests may work")
    namespace = os.environ.get("SWARM_E2E_OPERATOR_NAMESPACE", deploy.NAMESPACE)
    kube = Kube(namespace, {**os.environ, "KUBECONFIG": kubeconfig}, context)
    kube("rollout", "status", f"deployment/{deploy.DEPLOYMENT}", "--timeout=60s", timeout=70)
    return Found(kube, image, None)


def _is_here(item: pytest.Item) -> bool:
    return Path(__file__).parent in item.path.parents
