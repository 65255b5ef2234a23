"""A job, and a small world in which its plans are carried out."""

from dataclasses import replace

from swarm_api.job import SwarmTrainingJob
from swarm_api.report import ParticleReport, Presence, Report, SwarmState
from swarm_operator.plan import plan
from swarm_operator.plan.actions import Create, Delete, Plan
from swarm_operator.plan.facts import Event, Member, Observed, Phase, Role

NOON = 1_772_366_400.0
"""2026-03-01T12:00:00Z."""
SYNCHRONIZER = "synchronizer"


def a_job(*, replicas=4, min_replicas=1, status=None, policy=None, metadata=None, **spec):
    """A small valid job; `policy` and `spec` are fields as in a manifest."""
    particles = {
        "replicas": replicas,
        "minReplicas": min_replicas,
        "maxReplicas": 1024,
        "failurePolicy": policy or {},
        "template": {"spec": {"containers": [{"name": "trainer", "command": ["python", "train.py"]}]}},
    }
    return SwarmTrainingJob(
        metadata={"name": "mnist", "uid": "u-1", **(metadata or {})},
        spec={"algorithm": {"name": "PSOPS"}, "particles": particles, **spec},
        **({"status": status} if status else {}),
    )


class World:
    """Children that do what the test says; `step` makes one plan of what is observed and carries it out.

    A child is named by its index, or SYNCHRONIZER; a method acts on the newest incarnation of it.
    """

    def __init__(self, job):
        self.job = job
        self.now = NOON
        self.members: dict[tuple[Role, int, int], Member] = {}
        self.attached: dict[int, ParticleReport] = {}
        self.state = SwarmState.STARTING
        self.epoch = 0
        """Incarnation of the synchronizer whose report can be read."""
        self.message = ""
        self.last_sync = None
        self.report_error = ""
        self.checkpoint = None
        self.keeps_all = False
        self.events: list[Event] = []

    def observed(self):
        return Observed(
            members=tuple(self.members.values()),
            report=self.report(),
            report_error=self.report_error,
            keeps_all=self.keeps_all,
        )

    def report(self):
        if not self.epoch:
            return None
        return Report(
            uid=self.job.metadata.uid,
            incarnation=self.epoch,
            state=self.state,
            message=self.message,
            round=max((each.last_round for each in self.attached.values()), default=0),
            last_sync_time=self.last_sync,
            checkpoint=self.checkpoint,
            particles=tuple(self.attached.values()),
        )

    def plan(self):
        return plan(self.job, self.observed(), self.now)

    def step(self) -> Plan:
        made = self.plan()
        for action in made.actions:
            self.apply(action)
        self.remember(made)
        return made

    def remember(self, made):
        self.job = self.job.model_copy(update={"status": made.status})
        self.events += made.events

    def apply(self, action):
        key = (action.role, action.index, action.incarnation)
        if isinstance(action, Create):
            if key not in self.members:
                uid = f"{action.role}-{action.index}-{action.incarnation}"
                self.members[key] = Member(
                    role=action.role,
                    index=action.index,
                    incarnation=action.incarnation,
                    uid=uid,
                    phase=Phase.PENDING,
                    created=self.now,
                )
        elif (member := self.members.get(key)) and member.uid == action.uid:
            if member.ended_phase:
                del self.members[key]
            elif action.graceful:
                self.members[key] = replace(member, deleting=True)
            else:
                self._end(key, exit_code=-9, deleting=True)

    def newest(self, who) -> Member | None:
        role, index = (Role.SYNCHRONIZER, 0) if who == SYNCHRONIZER else (Role.PARTICLE, who)
        found = [member for member in self.members.values() if (member.role, member.index) == (role, index)]
        return max(found, key=lambda member: member.incarnation, default=None)

    def change(self, who, **fields):
        member = self.newest(who)
        self.members[member.role, member.index, member.incarnation] = replace(member, **fields)

    def run(self, *who):
        """Their processes start; a synchronizer's report can be read from then on."""
        for each in who:
            self.change(each, phase=Phase.RUNNING, started=self.now)
            if each == SYNCHRONIZER:
                self.epoch, self.state, self.attached = self.newest(each).incarnation, SwarmState.STARTING, {}

    def attach(self, *indices, presence=Presence.ATTACHED, **fields):
        for index in indices:
            member = self.newest(index)
            known = self.attached.get(index)
            if known is None or known.incarnation != member.incarnation:
                known = ParticleReport(
                    index=index,
                    incarnation=member.incarnation,
                    instance_uid=member.uid,
                    presence=presence,
                    attached_time=self.now,
                )
            self.attached[index] = known.model_copy(update={"presence": presence, **fields})

    def commit(self, *indices):
        """A round of these particles."""
        self.state, self.last_sync = SwarmState.TRAINING, self.now
        number = max((each.last_round for each in self.attached.values()), default=0) + 1
        for index in indices:
            known = self.attached[index]
            first = known.first_contribution_time or self.now
            update = {"contributions": known.contributions + 1, "last_round": number, "first_contribution_time": first}
            self.attached[index] = known.model_copy(update=update)

    def end(self, who, exit_code=0, **fields):
        """Its process ends; what it held of the swarm is gone with it."""
        member = self.newest(who)
        self._end((member.role, member.index, member.incarnation), exit_code, **fields)

    def _end(self, key, exit_code, **fields):
        member = self.members[key]
        phase = Phase.SUCCEEDED if exit_code == 0 else Phase.FAILED
        self.members[key] = replace(member, phase=phase, ended=self.now, exit_code=exit_code, **fields)
        known = self.attached.get(member.index)
        mine = member.role is Role.PARTICLE and known is not None and known.incarnation == member.incarnation
        if mine and known.presence is Presence.ATTACHED:
            self.attached[member.index] = known.model_copy(update={"presence": Presence.DETACHED})

    def finish(self, index):
        """It trains to the end, says so and exits."""
        self.attach(index, presence=Presence.FINISHED)
        self.end(index)

    def vanish(self, who):
        member = self.newest(who)
        if not member.ended_phase:
            self.end(who, -9)
        del self.members[member.role, member.index, member.incarnation]

    def stop_all(self):
        """Those that were told to stop do."""
        for key, member in list(self.members.items()):
            if member.deleting and not member.ended_phase:
                self._end(key, exit_code=0)

    def later(self, seconds):
        self.now += seconds

    @property
    def status(self):
        return self.job.status

    def condition(self, kind):
        return self.status.condition(kind)

    def attempt(self, who):
        return self.status.attempts[str(who)]

    def spec(self, *, particles=None, **fields):
        """The user edits the spec."""
        if particles:
            fields["particles"] = self.job.spec.particles.model_copy(update=particles)
        self.job = self.job.model_copy(update={"spec": self.job.spec.model_copy(update=fields)})

    def told(self, reason):
        return [event.message for event in self.events if event.reason == reason]


class Cluster(World):
    """A world seen through a cache: what is observed may lag, but never goes back."""

    def __init__(self, job):
        super().__init__(job)
        self.seen, self.heard, self.error = (), None, ""
        self.ever, self.suspect = set(), set()

    def look(self):
        self.seen = tuple(self.members.values())

    def listen(self):
        self.heard, self.error = self.report(), ""

    def observed(self):
        return Observed(members=self.seen, report=self.heard, report_error=self.error)

    def apply(self, action):
        key = (action.role, action.index, action.incarnation)
        if isinstance(action, Create):
            assert key in self.members or key not in self.ever, f"{key} is used again"
            self.ever.add(key)
        super().apply(action)

    def key(self, who):
        member = self.newest(who)
        return (member.role, member.index, member.incarnation)

    def runs(self, who):
        member = self.newest(who)
        return member is not None and member.phase is Phase.RUNNING

    def known(self, who):
        """Whether cache and status hold the newest incarnation."""
        member, attempt = self.newest(who), self.status.attempts.get(str(who))
        return member in self.seen and attempt is not None and attempt.incarnation >= member.incarnation

    def all_present(self):
        return self.runs(SYNCHRONIZER) and self.newest(SYNCHRONIZER).incarnation == self.epoch


def a_world(**job):
    return World(a_job(**job))


def a_training_world(*, lived=120.0, **job):
    """All particles attached and contributed, `lived` seconds ago."""
    world = a_world(**job)
    world.step()
    everyone = range(world.job.spec.particles.replicas)
    world.run(SYNCHRONIZER, *everyone)
    world.attach(*everyone)
    world.commit(*everyone)
    world.step()
    world.later(lived)
    return world


def created(made):
    """Who is started: index or SYNCHRONIZER, and incarnation."""
    return [(_who(each), each.incarnation) for each in made.actions if isinstance(each, Create)]


def deleted(made):
    return [(_who(each), each.incarnation) for each in made.actions if isinstance(each, Delete)]


def _who(action):
    return SYNCHRONIZER if action.role is Role.SYNCHRONIZER else action.index
