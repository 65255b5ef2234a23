"""What comes of pods that the cluster will not have: for how long they wait, and what is said of them."""

import asyncio

from swarm_operator.backends.kubernetes.births import FIRST_PAUSE, Births
from swarm_operator.backends.kubernetes.client import ApiError
from swarm_operator.backends.kubernetes.podset import PodSet
from swarm_operator.plan.actions import Create
from swarm_operator.plan.facts import Phase, Role
from unit.kubernetes.objects import NOON, a_pod

PODS = "api/v1/namespaces/team/pods"
QUOTA = ApiError(403, "Forbidden", "exceeded quota: few")


class Server:
    """Has pods by name, and refuses the names that the test wants."""

    def __init__(self):
        self.pods, self.refused = {}, {}

    async def create(self, path, body):
        name = body["metadata"]["name"]
        if name in self.refused:
            raise self.refused[name]
        if name in self.pods:
            raise ApiError(409, "AlreadyExists", f'pods "{name}" already exists')
        self.pods[name] = body
        return body

    async def get(self, path):
        return self.pods[path.removeprefix(f"{PODS}/")]


class World:
    def __init__(self):
        self.now = NOON
        self.server = Server()
        self.pods = PodSet()
        self.births = Births(self.server, self.pods, PODS, clock=lambda: self.now)

    def make(self, wish, **metadata):
        asyncio.run(self.births.make(wish, a_child(wish.index, **metadata)))

    def again(self):
        """Tries what is due; whose turn it was."""
        due = self.births.due()
        for wish in due:
            self.make(wish)
        return [wish.index for wish in due]

    def reasons(self):
        return {each.wish.index: each.reason for each in self.births}


def a_wish(index):
    return Create(role=Role.PARTICLE, index=index, incarnation=5)


def a_child(index, **metadata):
    pod = a_pod(metadata={"name": f"mnist-particle-{index}-5", "uid": f"u{index}", **metadata})
    pod["metadata"]["labels"]["swarm.training/particle-index"] = str(index)
    return pod


def a_stranger(index):
    return a_child(index, labels={"app": "mine"}, ownerReferences=[])


def test_a_name_that_a_strangers_pod_has_is_told_with_the_remedy_and_tried_again():
    world = World()
    world.server.pods["mnist-particle-2-5"] = a_stranger(2)
    world.make(a_wish(2))
    (refused,) = world.births
    member = refused.member()
    assert (member.phase, member.reason) == (Phase.PENDING, "NameTaken")
    assert "kubectl delete pod mnist-particle-2-5 --namespace team" in member.message
    assert world.again() == []
    world.now += FIRST_PAUSE
    assert world.again() == [2]
    del world.server.pods["mnist-particle-2-5"]
    world.now += 2 * FIRST_PAUSE
    assert world.again() == [2]
    assert world.reasons() == {}
    assert len(world.pods) == 1


def test_a_child_that_is_somebody_elses_in_spite_of_its_name_is_a_stranger():
    world = World()
    world.server.pods["mnist-particle-2-5"] = a_child(3, name="mnist-particle-2-5")
    world.make(a_wish(2))
    assert world.reasons() == {2: "NameTaken"}


def test_an_orphan_is_taken_note_of_so_that_the_next_incarnation_can_have_a_name():
    world = World()
    world.server.pods["mnist-particle-2-5"] = a_child(2, ownerReferences=[])
    world.make(a_wish(2))
    assert world.reasons() == {}
    assert [(pod.job_uid, pod.member.incarnation) for pod in world.pods] == [("", 5)]


def test_taken_names_neither_wait_for_what_holds_up_all_others_nor_hold_them_up():
    world = World()
    for index in (0, 1):
        world.server.pods[f"mnist-particle-{index}-5"] = a_stranger(index)
    world.server.refused = {f"mnist-particle-{index}-5": QUOTA for index in (2, 3)}
    for index in range(4):
        world.make(a_wish(index))
    world.now += FIRST_PAUSE
    assert world.again() == [0, 1, 2]
    assert world.again() == [], "what is true of 2 is true of 3"
    world.server.refused.clear()
    world.now += 2 * FIRST_PAUSE
    assert world.again() == [0, 1, 2]
    assert world.again() == [3]
    assert set(world.reasons()) == {0, 1}
