"""When a pod is given up with its node, and when a report is news."""

import pytest

from swarm_api.report import ParticleReport, Presence, Report, SwarmState
from swarm_operator.backends.kubernetes.loss import Hearsay, Node, lost, suspect, trouble
from swarm_operator.backends.kubernetes.news import is_news
from swarm_operator.plan.facts import Member, Phase, Role

NOW = 1000.0


def a_member(role=Role.PARTICLE, phase=Phase.RUNNING, started=100.0, node="n1", incarnation=1):
    return Member(
        role=role, index=2, incarnation=incarnation, uid="u", phase=phase, created=90.0, started=started, node=node
    )


def told(silent=0.0, *, at=NOW, incarnation=1, synchronizer=1, since=0.0):
    particle = ParticleReport(
        index=2, incarnation=incarnation, instance_uid="u", presence=Presence.ATTACHED, silent_seconds=silent
    )
    return Hearsay(report=Report(uid="j", incarnation=synchronizer, particles=(particle,)), at=at, since=since)


@pytest.mark.parametrize(
    ("node", "wrong"),
    [
        (Node(), ""),
        (Node(ready=True, renewed=NOW - 11), ""),
        (Node(ready=True, renewed=NOW - 13), "does not answer"),
        (Node(ready=False), "is not ready"),
        (Node(ready=True, gone=True), "was removed"),
    ],
)
def test_a_node_is_in_trouble_when_it_says_so_or_says_nothing(node, wrong):
    assert trouble(node, NOW) == wrong


BAD = Node(ready=True, renewed=NOW - 13)
DARK = Node(ready=True, renewed=NOW - 25)


@pytest.mark.parametrize(
    ("member", "node", "hearsay", "gone"),
    [
        (a_member(), BAD, told(silent=10), True),
        (a_member(), BAD, told(silent=9), False),
        (a_member(), Node(ready=True, renewed=NOW - 5), told(silent=50), False),
        (a_member(), Node(), told(silent=50), False),
        # The report is old itself: what it said then is no sign of life now.
        (a_member(), BAD, told(silent=2, at=NOW - 9), True),
        (a_member(), BAD, told(silent=2, at=NOW - 7), False),
        # Nobody has heard of this incarnation: it counts from its start, and its node must be silent for longer.
        (a_member(incarnation=2, started=NOW - 9), DARK, told(), False),
        (a_member(incarnation=2, started=NOW - 11), BAD, told(), False),
        (a_member(incarnation=2, started=NOW - 11), DARK, told(), True),
        (a_member(phase=Phase.PENDING, started=None), BAD, Hearsay(), False),
        (a_member(phase=Phase.PENDING, started=None), DARK, Hearsay(), True),
        (a_member(phase=Phase.PENDING, started=None), Node(ready=False), Hearsay(), True),
        # An operator that has just begun to listen has not heard much.
        (a_member(), BAD, Hearsay(since=NOW - 5), False),
        (a_member(phase=Phase.FAILED), BAD, told(silent=50), False),
        (a_member(node=""), BAD, told(silent=50), False),
        (a_member(role=Role.SYNCHRONIZER), BAD, told(at=NOW - 11), True),
        (a_member(role=Role.SYNCHRONIZER), BAD, told(at=NOW - 2), False),
        (a_member(role=Role.SYNCHRONIZER, incarnation=2), BAD, told(at=NOW - 2), False),
        (a_member(role=Role.SYNCHRONIZER, incarnation=2), DARK, told(at=NOW - 2), True),
    ],
)
def test_a_pod_is_given_up_when_its_node_is_in_trouble_and_nothing_was_heard_of_it(member, node, hearsay, gone):
    assert bool(lost(member, node, hearsay, NOW)) == gone


def test_whoever_is_silent_for_a_while_puts_its_node_under_suspicion():
    assert not suspect(a_member(), told(silent=2), NOW)
    assert suspect(a_member(), told(silent=4), NOW)
    assert not suspect(a_member(phase=Phase.SUCCEEDED), told(silent=40), NOW)


def a_report(state=SwarmState.TRAINING, particles=((0, {}), (1, {})), **fields):
    known = {"incarnation": 1, "instance_uid": "u", "presence": Presence.ATTACHED, "contributions": 3}
    found = tuple(ParticleReport(index=index, **{**known, **changes}) for index, changes in particles)
    return Report(uid="j", incarnation=1, state=state, particles=found, **fields)


@pytest.mark.parametrize(
    ("after", "news"),
    [
        (a_report(round=9, best_loss=0.5, best_particle=1), False),
        (a_report(particles=((0, {"step": 90, "contributions": 9, "loss": 0.1}), (1, {"silent_seconds": 2.0}))), False),
        (a_report(particles=((0, {}), (1, {"silent_seconds": 3.5}))), True),
        (a_report(particles=((0, {}), (1, {"presence": Presence.DETACHED}))), True),
        (a_report(particles=((0, {}), (1, {"incarnation": 2}))), True),
        (a_report(particles=((0, {}), (1, {"contributions": 0}))), True),
        (a_report(particles=((0, {}),)), True),
        (a_report(state=SwarmState.WAITING), True),
        (a_report(settings_generation=2), True),
        (None, True),
    ],
)
def test_numbers_are_no_news(after, news):
    assert is_news(a_report(), after, (3.0, 10.0)) == news
