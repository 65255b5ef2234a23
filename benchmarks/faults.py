"""What faults cost those that survive them: real processes, killed and frozen in the middle of rounds.

Run: PYTHONPATH=tests python benchmarks/faults.py [--repeats N] [--megabytes N] [--only SECTION] [--write]
Time in sync is what `optimizer.step()` takes in a step that exchanges; what a fault costs in it is counted beyond the
median of the rounds just before, of the same particle. Moments of kills and freezes are random within the time that a
round takes. Processes are forked from one that has imported torch; a synchronizer's next incarnation starts only when
its imports would be over, so that particles look for it as rarely as they do then. A slow particle is measured in
pairs: two swarms run side by side, one of which has it.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from _results import may_write, publish
from _timing import spread

from support.crowd import END, BareParticle
from support.crowd_watch import CROWD, Hub
from support.nursery import Process
from support.processes import UID, Processes, eventually, swarm_of
from swarm_api import env
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_trainer.weights import FlatWeights
from swarm_trainer.wire.auth import Identity

RESULT = "faults.md"
PERIOD = 10
PAUSE = 0.02
UNDISTURBED = 9
"""Rounds whose median is what a round takes undisturbed."""
IMPORTS_SECONDS = 3.0
HEARTBEAT_ROUNDS = 30
SMALL = 25_000
"""Elements of a model whose transfers do not count: two swarms share the machine's cores."""

SCRIPT = """
import json, os, signal, threading, time
import torch
from torch.utils.data import DataLoader, TensorDataset
import swarm_trainer as swarm

imported = time.time()


def say(**fields):
    os.write(1, (json.dumps(fields) + "\\n").encode())


def befall():
    say(befell=time.time())
    os.kill(os.getpid(), number)


index = int(os.environ["SWARM_PARTICLE_INDEX"])
model = torch.nn.Linear(8, 1)
model.big = torch.nn.Parameter(torch.zeros(ELEMENTS))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
loader = DataLoader(TensorDataset(torch.randn(800, 8)), batch_size=8)
particle = swarm.attach(model, optimizer)
say(imported=imported)
step = samples = 0
for epoch in particle.epochs(1):
    while not os.path.exists("end"):
        for (x,) in particle.batches(loader):
            time.sleep(PAUSE * (10 if os.path.exists(f"slow-{index}") else 1))
            loss = model(x).square().mean()
            optimizer.zero_grad()
            loss.backward()
            particle.report(loss=loss)
            step += 1
            samples += len(x)
            if step % PERIOD == 0 and os.path.exists(f"fault-{index}"):
                number, delay = json.load(open(f"fault-{index}"))
                os.remove(f"fault-{index}")
                threading.Timer(delay, befall).start()
            began = time.time()
            optimizer.step()
            if step % PERIOD == 0:
                say(step=step, began=began, ended=time.time())
            if os.path.exists("end"):
                break
say(samples=samples)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    what: str
    measured: str
    bar: str


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange as a particle saw it, Unix seconds."""

    began: float
    ended: float

    @property
    def took(self) -> float:
        """Seconds in sync."""
        return self.ended - self.began


class Bench:
    """A swarm that trains, and what befalls it."""

    def __init__(self, swarm: Processes, replicas: int) -> None:
        self.swarm = swarm
        self.synchronizer = swarm.synchronizer()
        self.epoch = 1
        self.incarnation = dict.fromkeys(range(replicas), 1)
        self.particles: dict[int, Process] = {index: swarm.particle(index) for index in range(replicas)}

    def name(self, index: int) -> str:
        """Of its process."""
        return f"particle-{index}-{self.incarnation[index]}"

    def said(self, index: int, key: str) -> list[dict[str, Any]]:
        """What the present incarnation has said of this."""
        return [line for line in self.swarm.said(self.name(index)) if key in line]

    def syncs(self, index: int) -> list[Exchange]:
        """All exchanges of the present incarnation."""
        return [Exchange(line["began"], line["ended"]) for line in self.said(index, "step")]

    def settle(self) -> None:
        """Wait until enough rounds in a row had everyone."""
        everyone = sorted(self.particles)

        def settled() -> bool:
            rounds = self.swarm.history("round")[-UNDISTURBED - 1 :]
            return len(rounds) > UNDISTURBED and all(line["contributors"] == everyone for line in rounds)

        eventually(settled, "undisturbed rounds", seconds=120)

    def usual(self, index: int) -> float:
        """Median time in sync of the last rounds."""
        return statistics.median(sync.took for sync in self.syncs(index)[-UNDISTURBED:])

    def strike(self, index: int, number: signal.Signals) -> float:
        """Let this befall a particle within its next exchange; returns when it did."""
        before = len(self.said(index, "befell"))
        delay = random.uniform(0, self.usual(index))
        partial = self.swarm.folder / "partial"
        partial.write_text(f"[{int(number)}, {delay}]")
        partial.replace(self.swarm.folder / f"fault-{index}")
        eventually(lambda: len(self.said(index, "befell")) > before, "it befalls")
        return float(self.said(index, "befell")[-1]["befell"])

    def after(self, index: int, moment: float, count: int = 1) -> list[Exchange]:
        """The exchange of a survivor that this moment fell into, or the one after it, and some more."""

        def found() -> list[Exchange]:
            return [sync for sync in self.syncs(index) if sync.ended >= moment][:count]

        return eventually(lambda: found() if len(found()) == count else [], "exchanges", seconds=90)

    def replace(self, index: int) -> tuple[float, float]:
        """The next incarnation: seconds from its imports to its first committed push, and the others' sync period."""
        self.incarnation[index] += 1
        self.particles[index] = self.swarm.particle(index, self.incarnation[index])
        imported = float(eventually(lambda: self.said(index, "imported"), "it attaches")[0]["imported"])

        def committed() -> list[float]:
            rounds = self.swarm.history("round")
            return [line["time"] for line in rounds if line["time"] > imported and index in line["contributors"]]

        first = eventually(committed, "its first push")[0]
        times = [sync.ended for sync in self.syncs(0)[-UNDISTURBED:]]
        return first - imported, (times[-1] - times[0]) / (len(times) - 1)


@contextmanager
def bench(elements: int, replicas: int, sync: Sync) -> Iterator[Bench]:
    algorithm = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=PERIOD)
    script = SCRIPT.replace("ELEMENTS", str(elements)).replace("PERIOD", str(PERIOD)).replace("PAUSE", str(PAUSE))
    with (
        tempfile.TemporaryDirectory() as folder,
        swarm_of(Path(folder), script, replicas=replicas, algorithm=algorithm, sync=sync) as swarm,
    ):
        yield Bench(swarm, replicas)


def milliseconds(values: list[float]) -> str:
    return spread([1000 * value for value in values], 0)


def killed(elements: int, repeats: int) -> list[Row]:
    beyond, rejoined, allowed = [], [], []
    with bench(elements, 3, Sync()) as swarm:
        for _ in range(repeats):
            swarm.settle()
            usual = {index: swarm.usual(index) for index in (0, 2)}
            moment = swarm.strike(1, signal.SIGKILL)
            swarm.particles[1].wait()
            beyond += [swarm.after(index, moment)[0].took - usual[index] for index in usual]
            took, period = swarm.replace(1)
            rejoined.append(took)
            allowed.append(1 + period)
        usual_now = milliseconds([sync.took for sync in swarm.syncs(0)[-UNDISTURBED:]])
    return [
        Row("a round undisturbed, ms in sync", usual_now, ""),
        Row("peer SIGKILLed in a round, ms beyond", milliseconds(beyond), "median 50"),
        Row(
            "replacement: imports done to first committed push, s",
            spread(rejoined, 2),
            f"1 + a sync period = {statistics.median(allowed):.2f}",
        ),
    ]


def frozen(elements: int, repeats: int, sync: Sync, what: str, bar: str) -> list[Row]:
    first, later = [], []
    with bench(elements, 3, sync) as swarm:
        for _ in range(repeats):
            swarm.settle()
            usual = {index: swarm.usual(index) for index in (0, 2)}
            moment = swarm.strike(1, signal.SIGSTOP)
            for index in usual:
                hit, *others = swarm.after(index, moment, 6)
                # It may freeze when its push has gone: then the next round is the one that misses it.
                worst = max([hit, others[0]], key=lambda sync: sync.took)
                first.append(worst.took - usual[index])
                later += [sync.took - usual[index] for sync in others if sync is not worst]
            swarm.particles[1].signal(signal.SIGCONT)
    return [
        Row(f"{what}: the round that misses it, ms beyond", milliseconds(first), bar),
        Row(f"{what}: the rounds after, ms beyond", milliseconds(later), "nothing"),
    ]


def synchronizer(elements: int, repeats: int) -> list[Row]:
    taken = []
    with bench(elements, 3, Sync()) as swarm:
        for epoch in range(2, repeats + 2):
            swarm.settle()
            time.sleep(random.uniform(0, PERIOD * PAUSE))
            swarm.synchronizer.signal(signal.SIGKILL)
            swarm.synchronizer.wait()
            time.sleep(IMPORTS_SECONDS)
            swarm.synchronizer = swarm.swarm.synchronizer(epoch)
            where = swarm.swarm.folder / "where.json"
            listens = eventually(lambda where=where: where.exists() and where.stat().st_mtime, "it listens")
            rounds = swarm.swarm.history

            def committed(since: float = listens, rounds: Callable[..., Any] = rounds) -> list[float]:
                return [line["time"] for line in rounds("round") if line["time"] > since]

            taken.append(eventually(committed, "a round")[0] - listens)
    return [Row("synchronizer SIGKILLed: the next one listens to first committed round, s", spread(taken, 2), "2")]


def slow(repeats: int) -> list[Row]:
    window = 3.0
    with bench(SMALL, 3, Sync()) as even, bench(SMALL, 3, Sync()) as uneven:
        even.settle()
        uneven.settle()
        uneven.swarm.touch("slow-2")
        time.sleep(2 * window)
        began = time.time()
        time.sleep(window * (repeats + 1))
        ratios = []
        for number in range(repeats):
            since = began + number * window
            rates = [
                statistics.mean(rate(swarm.syncs(index), since, since + window) for index in (0, 1))
                for swarm in (even, uneven)
            ]
            ratios.append(rates[1] / rates[0])
        for swarm in (even, uneven):
            swarm.swarm.touch("end")
            assert swarm.swarm.ended(swarm.synchronizer) == 0
        trained = sum(uneven.said(index, "samples")[-1]["samples"] for index in range(3))
        merged = uneven.swarm.history("round")[-1]["samples"]
        contributions = sum(2 in line["contributors"] for line in uneven.swarm.history("round"))
    return [
        Row("one of three 10 times slower: rate of the others / in a swarm without it", spread(ratios, 3), "0.95"),
        Row(
            "its pushes that were merged; samples merged of all that were trained",
            f"{contributions}; {merged} of {trained}",
            "all",
        ),
    ]


def heartbeats(megabytes: int) -> list[Row]:
    """Of one more particle, while eight push and pull large models as fast as they can."""
    particles, elements = 8, 256_000 * megabytes
    every_step = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=1)
    identity = Identity(job_uid=UID, index=particles, incarnation=1, instance_uid="heart")

    async def beat(swarm: Processes, crowd: Process) -> list[float]:
        weights = FlatWeights(torch.nn.Linear(elements, 1, bias=False))
        secret = (swarm.folder / "secret").read_bytes()
        host, port = json.loads((swarm.folder / "where.json").read_text())["address"].split(":")
        heart = await BareParticle.attach((host, int(port)), identity, secret, weights)
        seconds = []
        while crowd.poll() is None:
            seconds.append(await heart.answered())
            await asyncio.sleep(0.02)
        return seconds

    with (
        tempfile.TemporaryDirectory() as folder,
        swarm_of(Path(folder), "", replicas=particles, algorithm=every_step, sync=Sync()) as swarm,
    ):
        swarm.synchronizer()
        eventually(swarm.report, "a report")
        hub = Hub(particles, 0)
        order = [str(CROWD), *map(str, (0, particles, 1, elements, HEARTBEAT_ROUNDS, 0, hub.port))]
        who = {env.PARTICLE_INDEX: "0", env.INCARNATION: "1", env.INSTANCE_UID: "crowd"}
        crowd = swarm.start("crowd", order, who)
        eventually(lambda: swarm.history("round"), "the first round", seconds=120)
        hub.gather(lambda: crowd.poll() is not None)
        hub.serve(0, END)
        seconds = asyncio.run(beat(swarm, crowd))
        hub.close()
        assert crowd.wait() == 0
    longest = f"{1000 * statistics.quantiles(seconds, n=100)[98]:.0f}, {1000 * max(seconds):.0f}"
    what = (
        f"{len(seconds)} heartbeats answered while {particles} x {megabytes} MB are pushed, merged and pulled "
        f"{HEARTBEAT_ROUNDS} times, ms (99 %, longest)"
    )
    return [Row(what, f"{milliseconds(seconds)} ({longest})", "100")]


def rate(syncs: list[Exchange], since: float, until: float) -> float:
    """Exchanges a second within the window."""
    times = [sync.ended for sync in syncs if since <= sync.ended <= until]
    return (len(times) - 1) / (times[-1] - times[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=16)
    parser.add_argument("--megabytes", type=int, default=20)
    parser.add_argument("--only", default="")
    may_write(parser, RESULT)
    arguments = parser.parse_args()
    random.seed(0)
    elements, repeats = arguments.megabytes * 250_000, arguments.repeats
    strict = Sync(quorum="100%", deadline_seconds=2)
    sections: dict[str, Callable[[], list[Row]]] = {
        "killed": lambda: killed(elements, repeats),
        "frozen": lambda: frozen(elements, repeats, Sync(), "peer SIGSTOPped, default settings", "the grace of 200"),
        "strict": lambda: frozen(elements, repeats, strict, "peer SIGSTOPped, quorum 100 %", "the deadline of 2000"),
        "synchronizer": lambda: synchronizer(elements, repeats),
        "slow": lambda: slow(repeats),
        "heartbeats": lambda: heartbeats(10 * arguments.megabytes),
    }
    rows = [Row("what", "median (quartiles)", "bar"), Row("---", "---", "---")]
    for name, section in sections.items():
        if arguments.only in ("", name):
            rows += section()
    table = "\n".join(f"| {row.what} | {row.measured} | {row.bar} |" for row in rows)
    how = (
        f"`make bench-faults`, torch {torch.__version__}, {os.cpu_count()} cores, three particles of "
        f"{arguments.megabytes} MB, {PERIOD} steps of {1000 * PAUSE:.0f} ms between exchanges, {repeats} repeats."
    )
    publish(RESULT, "What faults cost", how, table, write=arguments.write)


if __name__ == "__main__":
    main()
