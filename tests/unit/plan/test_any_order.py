"""Whatever happens in whatever order, seen late or not at all: the promises of the plan hold, and it converges."""

from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import Phase as Phases
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarm_api.report import Presence, SwarmState
from swarm_api.status import JobState
from swarm_operator.plan import plan
from swarm_operator.plan.actions import Create
from swarm_operator.plan.facts import Phase, Role
from unit.plan.builders import SYNCHRONIZER, Cluster, a_job

BUDGET = 3
PARTICLES = st.integers(0, 3)
ANYONE = st.one_of(st.just(SYNCHRONIZER), PARTICLES)


class AnyOrder(RuleBasedStateMachine):
    """Rules are what may happen; `carry_out` checks every plan that is made."""

    @initialize(replicas=st.integers(1, 4), data=st.data())
    def begin(self, replicas, data):
        floor = data.draw(st.integers(1, replicas))
        policy = {"maxFailuresPerParticle": BUDGET, "windowSeconds": 600}
        self.world = Cluster(a_job(replicas=replicas, min_replicas=floor, policy=policy))
        self.ended = None

    @rule(look=st.booleans(), listen=st.booleans(), outcome=st.sampled_from(["all", "half", "none", "twice"]))
    def step(self, look, listen, outcome):
        if look:
            self.world.look()
        if listen:
            self.world.listen()
        self.carry_out(outcome)

    @rule(times=st.integers(1, 3))
    def steps_in_sight(self, times):
        for _ in range(times):
            self.world.look()
            self.world.listen()
            self.carry_out("all")

    @rule()
    def status_is_lost(self):
        """The operator ends between its actions and the write of the status."""
        self.world.look()
        before = self.world.status
        self.carry_out("all")
        self.world.job = self.world.job.model_copy(update={"status": before})
        self.ended = before if before.state.ended else None

    def carry_out(self, outcome):
        world = self.world
        observed, before = world.observed(), world.status
        made = plan(world.job, observed, world.now)
        self.check(observed, made)
        actions = {"all": made.actions, "half": made.actions[::2], "none": (), "twice": made.actions * 2}[outcome]
        for action in actions:
            world.apply(action)
        world.remember(made)
        if before.state.ended:
            assert made.status == before
        if made.status.state.ended and self.ended is None:
            self.ended = made.status

    def check(self, observed, made):
        world, job = self.world, self.world.job
        shuffled = replace(observed, members=observed.members[::-1])
        assert plan(job, shuffled, world.now) == made, "the order of what was observed matters"

        again = plan(job.model_copy(update={"status": made.status}), observed, world.now)
        assert again.status == made.status
        assert again.events == ()
        assert {step for step in again.actions if isinstance(step, Create)} <= set(made.actions)

        for action in made.actions:
            self.check_action(observed, made, action)
        for key, attempt in made.status.attempts.items():
            assert len(attempt.failures) <= (BUDGET + 1 if attempt.quarantined else BUDGET)
            assert made.status.state.ended or attempt.incarnation >= job.status.attempts.get(key, attempt).incarnation

    def check_action(self, observed, made, action):
        world, spec = self.world, self.world.job.spec
        key = (action.role, action.index, action.incarnation)
        attempt = made.status.attempts.get(_key(action))
        if isinstance(action, Create):
            assert not made.status.state.ended
            assert not spec.suspend
            assert not attempt.quarantined
            assert not attempt.finished
            assert action.role is Role.SYNCHRONIZER or action.index < spec.particles.replicas
            old = observed.of(action.role, action.index)
            replaced = not old or old[-1].ended_phase or old[-1].deleting or attempt.ended_at
            assert replaced, f"{key} would stand beside one that lives"
            return
        assert made.status.state.ended or world.status.attempts[_key(action)].incarnation >= action.incarnation
        member = world.members.get(key)
        who = SYNCHRONIZER if action.role is Role.SYNCHRONIZER else action.index
        if member is None or member.ended_phase or member.deleting or world.newest(who) is not member:
            return
        wanted = action.role is Role.SYNCHRONIZER or action.index < spec.particles.replicas
        told_to = attempt.incarnation == action.incarnation and attempt.last_reason in ("Suspended", "ScaledDown")
        excused = made.status.state.ended or spec.suspend or not wanted or told_to or key in world.suspect
        assert excused, f"{key} is healthy"

    @rule(who=ANYONE)
    def start(self, who):
        member = self.world.newest(who)
        if member and member.phase is Phase.PENDING:
            self.world.run(who)

    @rule(committed=st.booleans())
    def all_train(self, committed):
        """All that can do: so that long games reach interesting states."""
        world = self.world
        for who in (SYNCHRONIZER, *range(4)):
            self.start(who)
        if not world.all_present():
            return
        for index in range(4):
            if world.runs(index) and self.awaits(index):
                world.attach(index)
        if committed:
            world.commit(*(index for index, each in world.attached.items() if each.presence is Presence.ATTACHED))

    @rule(rounds=st.integers(1, 3))
    def all_goes_well(self, rounds):
        for _ in range(rounds):
            self.steps_in_sight(1)
            self.all_train(committed=True)

    @rule(who=ANYONE, times=st.integers(2, 6), lived=st.sampled_from([1, 100]))
    def keeps_failing(self, who, times, lived):
        for _ in range(times):
            self.steps_in_sight(1)
            self.start(who)
            self.fail(who, 1, lived)

    @rule()
    def all_finish(self):
        for index in range(4):
            self.finish(index, 0)

    def awaits(self, index):
        """Whether the swarm takes this particle in: not an older incarnation, and not one that finished."""
        known = self.world.attached.get(index)
        return (
            known is None
            or known.incarnation < self.world.newest(index).incarnation
            or (known.incarnation == self.world.newest(index).incarnation and known.presence is not Presence.FINISHED)
        )

    @rule(who=ANYONE, code=st.sampled_from([1, -9, 137]), after=st.sampled_from([0, 1, 100]))
    def fail(self, who, code, after):
        self.world.later(after)
        if self.world.runs(who) and not self.world.newest(who).deleting:
            self.world.end(who, code)

    @rule(who=ANYONE)
    def is_killed(self, who):
        if self.world.runs(who):
            self.world.end(who, -9, disrupted=True)

    @rule(who=ANYONE)
    def others_delete(self, who):
        member = self.world.newest(who)
        if member and not member.ended_phase:
            self.world.suspect.add(self.world.key(who))
            self.world.change(who, deleting=True)

    @rule(who=ANYONE)
    def vanish(self, who):
        if self.world.newest(who) and self.world.known(who):
            self.world.vanish(who)

    @rule(index=PARTICLES, exit_code=st.sampled_from([0, 0, 1]))
    def finish(self, index, exit_code):
        world = self.world
        if world.all_present() and world.runs(index) and index in world.attached and self.awaits(index):
            world.attach(index, presence=Presence.FINISHED)
            world.end(index, exit_code)

    @rule(index=PARTICLES)
    def exit_early(self, index):
        if self.world.runs(index) and not self.world.newest(index).deleting:
            self.world.end(index, 0)

    @rule(index=PARTICLES, detached=st.booleans())
    def falls_silent(self, index, detached):
        world = self.world
        known = world.attached.get(index)
        if world.all_present() and world.runs(index) and known and known.incarnation == world.newest(index).incarnation:
            world.suspect.add(world.key(index))
            world.attach(index, presence=Presence.DETACHED if detached else known.presence, silent_seconds=1000)

    @rule()
    def those_told_to_stop_do(self):
        self.world.stop_all()

    @precondition(lambda self: not self.world.error)
    @rule()
    def report_becomes_unreadable(self):
        self.world.error = "timed out"

    @rule()
    def toggle_suspend(self):
        self.world.spec(suspend=not self.world.job.spec.suspend)

    @rule(replicas=st.integers(1, 4))
    def scale(self, replicas):
        if replicas >= self.world.job.spec.particles.min_replicas:
            self.world.spec(particles={"replicas": replicas})

    @rule(seconds=st.sampled_from([0.3, 1, 3, 30, 100, 700]))
    def time_passes(self, seconds):
        self.world.later(seconds)

    @invariant()
    def an_end_is_the_end(self):
        if self.ended is not None:
            assert self.world.status == self.ended

    def teardown(self):
        """With faults at an end everything comes to rest, and rests as the user wants it."""
        if not hasattr(self, "world"):
            return
        world, before = self.world, None
        for _ in range(80):
            world.look()
            world.listen()
            made = plan(world.job, world.observed(), world.now)
            self.carry_out("all")
            self.all_train(committed=True)
            world.stop_all()
            soon = made.requeue_after is not None and made.requeue_after < 100
            if not (made.actions or soon) and before == (made.status.state, world.members):
                break
            before = (made.status.state, dict(world.members))
            world.later(made.requeue_after if soon else 1)
            if self.all_finished():
                world.state = SwarmState.FINISHED
                world.end(SYNCHRONIZER, 0)
        else:
            raise AssertionError("the plan does not come to rest")
        self.check_rest(made)

    def all_finished(self):
        attempts = self.world.status.attempts
        desired = [attempts.get(str(index)) for index in range(self.world.job.spec.particles.replicas)]
        left = [attempt for attempt in desired if attempt is None or not attempt.quarantined]
        done = left and all(attempt and attempt.finished for attempt in left)
        return done and self.world.all_present() and not self.world.status.state.ended

    def check_rest(self, made):
        world, state = self.world, self.world.status.state
        live = {_key(member): member for member in world.members.values() if not member.ended_phase}
        if state.ended or world.job.spec.suspend:
            assert state.ended or state is JobState.SUSPENDED
            assert not live
            return
        attempts = {key: attempt for key, attempt in world.status.attempts.items() if key != SYNCHRONIZER}
        replicas = range(world.job.spec.particles.replicas)
        desired = {str(index): attempts[str(index)] for index in replicas}
        trains = {key for key, attempt in desired.items() if not (attempt.finished or attempt.quarantined)}
        assert set(live) == trains | {SYNCHRONIZER}
        assert len(live) == sum(not member.ended_phase for member in world.members.values())
        given_up = any(attempts[str(index)].quarantined for index in replicas)
        assert state is (JobState.DEGRADED if given_up else JobState.RUNNING)


def _key(child):
    return SYNCHRONIZER if child.role is Role.SYNCHRONIZER else str(child.index)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(
    max_examples=300,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    phases=(Phases.generate, Phases.shrink),
    suppress_health_check=[HealthCheck.too_slow],
)
