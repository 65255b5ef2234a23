"""When which job is looked at: a schedule with a clock that stands still, and the queue around it."""

import asyncio
import logging
import random

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from swarm_operator.backends.kubernetes.client import ApiError
from swarm_operator.cluster.queue import WORKERS, WorkQueue
from swarm_operator.cluster.schedule import FIRST_BACKOFF, LONGEST_BACKOFF, Schedule


def a_schedule(spread=0.0):
    return Schedule(lambda: spread)


def drained(schedule, now):
    taken = []
    while (key := schedule.take(now)) is not None:
        taken.append(key)
    return taken


class TestSchedule:
    def test_a_key_comes_once_however_often_it_was_added(self):
        schedule = a_schedule()
        for _ in range(200):
            schedule.add("a", 1.0)
        schedule.add("b", 1.0)
        assert drained(schedule, 1.0) == ["a", "b"]
        assert len(schedule) == 0

    def test_the_earliest_of_several_times_holds(self):
        schedule = a_schedule()
        schedule.add("a", 9.0)
        schedule.add("a", 3.0)
        schedule.add("a", 5.0)
        assert schedule.next_due() == 3.0
        assert drained(schedule, 2.9) == []
        assert drained(schedule, 3.0) == ["a"]
        assert drained(schedule, 99.0) == []

    def test_a_key_is_never_out_twice_and_what_came_meanwhile_is_not_lost(self):
        schedule = a_schedule()
        schedule.add("a", 0.0)
        assert schedule.take(0.0) == "a"
        schedule.add("a", 1.0)
        assert schedule.take(1.0) is None
        schedule.done("a")
        assert schedule.take(1.0) == "a"
        schedule.done("a")
        assert schedule.next_due() is None

    def test_failures_wait_longer_and_longer_until_it_goes_well(self):
        schedule, now, pauses = a_schedule(), 0.0, []
        for _ in range(12):
            schedule.add("a", now)
            assert schedule.take(now) == "a"
            pauses.append(schedule.failed("a", now))
            assert schedule.take(now) is None
            now += pauses[-1]
        assert pauses[:3] == [FIRST_BACKOFF, 2 * FIRST_BACKOFF, 4 * FIRST_BACKOFF]
        assert pauses[-1] == LONGEST_BACKOFF
        assert schedule.take(now) == "a"
        schedule.done("a")
        schedule.add("a", now)
        schedule.take(now)
        assert schedule.failed("a", now) == FIRST_BACKOFF

    def test_the_server_may_ask_for_a_longer_pause_and_jitter_is_added(self):
        schedule = a_schedule(spread=1.0)
        schedule.add("a", 0.0)
        schedule.take(0.0)
        assert schedule.failed("a", 0.0) == pytest.approx(1.25 * FIRST_BACKOFF)
        schedule.take(10.0)
        assert schedule.failed("a", 10.0, at_least=7.0) == 7.0

    def test_news_of_a_key_that_backs_off_are_not_kept_waiting(self):
        schedule = a_schedule()
        schedule.add("a", 0.0)
        schedule.take(0.0)
        schedule.failed("a", 0.0, at_least=60.0)
        schedule.add("a", 1.0)
        assert schedule.take(1.0) == "a"

    def test_news_of_a_key_that_fails_again_and_again_do_not_make_its_pause_longer(self):
        schedule = a_schedule()
        schedule.add("a", 0.0)
        schedule.take(0.0)
        assert schedule.failed("a", 0.0, at_least=8.0) == 8.0
        for now in (1.0, 2.0, 6.0):
            schedule.add("a", now)
            assert schedule.take(now) == "a"
            assert schedule.failed("a", now) == 8.0 - now
        assert schedule.take(8.0) == "a"
        assert schedule.failed("a", 8.0) == 2 * FIRST_BACKOFF

    def test_it_tells_how_long_the_oldest_has_been_due_or_out(self):
        schedule = a_schedule()
        schedule.add("a", 1.0)
        schedule.add("b", 5.0)
        assert (schedule.overdue(0.5), schedule.overdue(4.0), schedule.longest_out(4.0)) == (0.0, 3.0, 0.0)
        schedule.take(4.0)
        assert (schedule.overdue(4.5), schedule.longest_out(6.0)) == (0.0, 2.0)


class AnyOrder(RuleBasedStateMachine):
    """Against the simplest thing that could be right: a dict of times."""

    keys = Bundle("keys")

    def __init__(self):
        super().__init__()
        self.schedule = Schedule(random.Random(0).random)
        self.now = 0.0
        self.due, self.out, self.again = {}, set(), {}

    @rule(target=keys, key=st.integers(0, 4))
    def a_key(self, key):
        return key

    @rule(key=keys, delay=st.floats(0, 5))
    def add(self, key, delay):
        self.schedule.add(key, self.now + delay)
        waiting = self.again if key in self.out else self.due
        waiting[key] = min(waiting.get(key, self.now + delay), self.now + delay)

    @rule(seconds=st.floats(0, 5))
    def later(self, seconds):
        self.now += seconds

    @rule()
    def take(self):
        key = self.schedule.take(self.now)
        due = [each for each, when in self.due.items() if when <= self.now]
        assert (key in due) if due else key is None
        if key is not None:
            assert self.due[key] == min(self.due.values())
            del self.due[key]
            self.out.add(key)

    @rule(fails=st.booleans(), data=st.data())
    def give_back(self, fails, data):
        if not self.out:
            return
        key = data.draw(st.sampled_from(sorted(self.out)))
        if fails:
            pause = self.schedule.failed(key, self.now)
            self.again[key] = min(self.again.get(key, self.now + pause), self.now + pause)
        else:
            self.schedule.done(key)
        self.out.remove(key)
        if key in self.again:
            self.due[key] = self.again.pop(key)

    @invariant()
    def nothing_is_lost(self):
        assert len(self.schedule) == len(self.due) + len(self.again)
        assert self.schedule.next_due() == min(self.due.values(), default=None)


TestAnyOrder = AnyOrder.TestCase


def running(story):
    asyncio.run(asyncio.wait_for(story(), 10))


class TestWorkQueue:
    def test_a_burst_is_one_look_and_what_comes_during_it_one_more(self):
        async def story():
            looked, go_on = [], asyncio.Event()

            async def work(key):
                looked.append(key)
                await go_on.wait()

            queue = WorkQueue(work)
            for _ in range(100):
                queue.add("a")
            await asyncio.sleep(0)
            for _ in range(100):
                queue.add("a")
            await asyncio.sleep(0.01)
            assert looked == ["a"]
            go_on.set()
            await asyncio.sleep(0.01)
            assert looked == ["a", "a"]
            await queue.close()

        running(story)

    def test_keys_are_worked_on_at_once_but_not_too_many(self):
        async def story():
            active, most = 0, 0

            done = asyncio.Event()

            async def work(key):
                nonlocal active, most
                active += 1
                most = max(most, active)
                await asyncio.sleep(0.01)
                active -= 1
                if key == 3 * WORKERS - 1:
                    done.set()

            queue = WorkQueue(work)
            for key in range(3 * WORKERS):
                queue.add(key)
            await done.wait()
            assert most == WORKERS
            await queue.close()

        running(story)

    def test_work_is_done_again_when_it_asks_for_it_and_when_it_failed(self, caplog):
        async def story():
            answers = iter([0.01, ApiError(503, "", "busy", 0.05), ValueError("a bug"), None])
            done, all_done = [], asyncio.Event()

            async def work(_):
                done.append(asyncio.get_running_loop().time())
                answer = next(answers)
                if isinstance(answer, Exception):
                    raise answer
                if answer is None:
                    all_done.set()
                return answer

            queue = WorkQueue(work)
            queue.add(("team", "mnist"))
            await all_done.wait()
            await queue.close()
            assert done[2] - done[1] >= 0.05, "the server asked for it"

        running(story)
        assert "team/mnist: busy" in caplog.text
        assert "Traceback" in caplog.text
        assert "a bug" in caplog.text

    def test_what_stays_wrong_is_said_once_and_what_works_again_too(self, caplog):
        caplog.set_level(logging.INFO)
        forbidden, busy = ApiError(403, "Forbidden", "not yours"), ApiError(503, "", "busy")

        async def story():
            answers = iter([forbidden, forbidden, forbidden, busy, busy, None, forbidden, None])
            all_done = asyncio.Event()

            async def work(key):
                answer = next(answers, all_done)
                if answer is all_done:
                    all_done.set()
                elif answer is not None:
                    asyncio.get_running_loop().call_soon(queue.add, key)
                    raise answer
                else:
                    asyncio.get_running_loop().call_soon(queue.add, key)

            queue = WorkQueue(work)
            queue.add(("team", "mnist"))
            await all_done.wait()
            await queue.close()

        running(story)
        told = [record.getMessage().partition("; tried again")[0] for record in caplog.records]
        assert told == [
            "team/mnist: not yours (Forbidden 403)",
            "team/mnist: busy (HTTP 503)",
            "team/mnist: it works again",
            "team/mnist: not yours (Forbidden 403)",
            "team/mnist: it works again",
        ]

    def test_closing_waits_for_what_runs_and_begins_nothing(self):
        async def story():
            ended = []

            async def work(key):
                await asyncio.sleep(0.02)
                ended.append(key)

            queue = WorkQueue(work)
            queue.add("a")
            await asyncio.sleep(0)
            await queue.close()
            queue.add("b")
            await asyncio.sleep(0.05)
            assert ended == ["a"]

        running(story)

    def test_closing_does_not_wait_for_ever(self):
        async def story():
            async def work(_):
                await asyncio.sleep(60)

            queue = WorkQueue(work)
            queue.add("a")
            await asyncio.sleep(0)
            await queue.close(patience=0.01)

        running(story)
