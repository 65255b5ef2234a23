"""A synchronizer in a thread of this process, and particles whose training thread is the test, over real sockets."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from support.cable import Cable
from support.processes import UID, eventually, some_settings
from swarm_api.report import ParticleReport, Presence, SwarmState
from swarm_api.settings import Keeping
from swarm_trainer.checkpoint.store import Store
from swarm_trainer.connection import Connection, connect
from swarm_trainer.conversation import Conversation
from swarm_trainer.exchange import Exchange
from swarm_trainer.session import Session
from swarm_trainer.surroundings import Surroundings
from swarm_trainer.synchronizer.door import Door
from swarm_trainer.synchronizer.gauges import Gauges
from swarm_trainer.synchronizer.hub import Hub
from swarm_trainer.synchronizer.journal import Journal
from swarm_trainer.training_state import TrainingState
from swarm_trainer.vectors import BUFFERS, INTEGERS, Tensors, X, largest_donation, present, read, room, write
from swarm_trainer.weights import FlatWeights, Schema
from swarm_trainer.wire import messages as say
from swarm_trainer.wire.auth import Identity

T = TypeVar("T")

SECRET = b"secret"
SECONDS = 20.0


def a_model(width: int = 2) -> nn.Module:
    """With floating and integer buffers."""
    return nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width))


class Particle:
    """One session, and what its training thread would do."""

    def __init__(self, surroundings: Surroundings, model: nn.Module, threads: ThreadPoolExecutor) -> None:
        self.weights = FlatWeights(model)
        self.training = TrainingState([torch.optim.AdamW(model.parameters())], {})
        self.conversation = Conversation(
            surroundings, self.weights.schema, lambda: read(self.weights, X, BUFFERS, INTEGERS), self._donate
        )
        self.session = Session(self.conversation)
        self._threads = threads
        self._sequence = 0

    def _donate(self) -> tuple[say.Donation, Tensors]:
        return self.training.give(largest_donation(self.schema))

    def inheriting(self) -> "Future[tuple[say.Donation, Tensors] | None]":
        """Ask for a donation."""
        return self._threads.submit(self.session.fetch_donation)

    @property
    def schema(self) -> Schema:
        return self.weights.schema

    def constant(self, value: float) -> Tensors:
        """All vectors of the model, filled with one value."""
        return {name: room(self.schema, name).fill_(value) for name in present(self.schema, X, BUFFERS, INTEGERS)}

    def attach(self) -> tuple[say.Welcome, Tensors]:
        return self.attaching().result(SECONDS)

    def attaching(self) -> "Future[tuple[say.Welcome, Tensors]]":
        return self._threads.submit(self.session.attach)

    def push(self, value: float | Tensors, **fields: Any) -> tuple[say.Reply, Tensors]:
        return self.pushing(value, **fields).result(SECONDS)

    def pushing(self, value: float | Tensors, **fields: Any) -> "Future[tuple[say.Reply, Tensors]]":
        self._sequence += 1
        tensors = value if isinstance(value, dict) else self.constant(value)
        push = a_push(self._sequence, tensors, **fields)

        def exchange() -> tuple[say.Reply, Tensors]:
            answer = self.session.exchange(push, tensors)
            assert answer is not None, "the connection was lost"
            return answer

        return self._threads.submit(exchange)


class Training:
    """A particle that steps with the gradients it is given."""

    def __init__(
        self, particle: Particle, model: nn.Module, optimizer: Optimizer, welcomed: tuple[say.Welcome, Tensors]
    ) -> None:
        welcome, tensors = welcomed
        write(particle.weights, tensors)
        self.particle = particle
        self.model = model
        self.optimizer = optimizer
        self.exchange = Exchange(
            session=particle.session,
            weights=particle.weights,
            optimizers=[optimizer],
            settings=welcome.settings,
            leader=0,
        )

    @property
    def x(self) -> torch.Tensor:
        return self.particle.weights.gather()

    def step(self, gradient: float = 0.0) -> None:
        for parameter in self.model.parameters():
            parameter.grad = torch.full_like(parameter, gradient)
        self.exchange.meter.add(1.0)
        self.exchange.before_step()
        self.optimizer.step()
        self.exchange.after_step()


def until_attached(*particles: Particle) -> None:
    """They go on training until they are back."""

    def step() -> bool:
        for particle in particles:
            particle.session.at_step()
        return all(particle.session.attached for particle in particles)

    eventually(step, "attached again")


def a_push(
    sequence: int, tensors: Tensors, *, fitness: float | None = 1.0, samples: int = 0, generation: int = 1
) -> say.Push:
    return say.Push(
        sequence=sequence,
        generation=generation,
        fitness=fitness,
        tensors=tuple(tensors),
        progress=say.Progress(samples=samples),
    )


class Synchronizer:
    """Hub and door in an event loop of their own."""

    def __init__(self, epoch: int, address_file: Path, *, store: Store | None = None, **changes: Any) -> None:
        self._epoch = epoch
        self._store = store
        self._address_file = address_file
        self._settings = some_settings(**changes)
        """The newest."""
        self._ready: Future[None] = Future()
        self._stopping = asyncio.Event()
        self._bare: list[Connection] = []
        self.ended: Future[None] = Future()
        """The end of the hub's run."""
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        self._ready.result(SECONDS)

    async def _main(self) -> None:
        self.loop = asyncio.get_running_loop()
        journal = Journal(None)
        self.hub = Hub(self._settings, epoch=self._epoch, journal=journal, gauges=Gauges(), store=self._store)
        settings = self._settings
        door = Door(
            job_uid=settings.uid,
            secret=SECRET,
            epoch=self._epoch,
            link=settings.sync.link,
            welcome=self.hub.welcome,
            known=self.hub.known,
        )
        host, port = door.listen("127.0.0.1", 0)
        self._address_file.write_text(f'{{"address": "{host}:{port}"}}')
        running, serving = asyncio.create_task(self.hub.run()), asyncio.create_task(door.serve())
        running.add_done_callback(self._note_end)
        self._ready.set_result(None)
        await self._stopping.wait()
        for task in (running, serving):
            task.cancel()
        await asyncio.gather(running, serving, return_exceptions=True)
        self.hub.close()
        for connection in self._bare:
            connection.close()

    def _note_end(self, running: "asyncio.Task[None]") -> None:
        if running.cancelled():
            self.ended.cancel()
        elif error := running.exception():
            self.ended.set_exception(error)
        else:
            self.ended.set_result(None)

    async def bare(self, surroundings: Surroundings, schema: Schema | dict[str, Any]) -> Connection:
        """A particle that has said its first word, and does nothing more by itself."""
        connection = await connect(surroundings, least_epoch=0)
        self._bare.append(connection)
        model = schema.model_dump(mode="json") if isinstance(schema, Schema) else schema
        await connection.say(say.Attach(model=model, returning=False))
        return connection

    def start(self, work: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start a coroutine in the synchronizer's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the synchronizer's loop."""
        return self.start(work).result(SECONDS)

    def change(self, **changes: Any) -> None:
        """Another generation of settings, as the file would bring it."""
        self._settings = self._settings.model_copy(update={"generation": self._settings.generation + 1, **changes})
        self.loop.call_soon_threadsafe(self.hub.apply, self._settings)

    def reported(self, index: int) -> ParticleReport:
        """What the report says of one particle."""
        found = self.hub.report().particle(index)
        assert found is not None
        return found

    def until_presence(self, index: int, presence: Presence) -> None:
        """Wait until the report has this particle, and so."""

        def found() -> bool:
            particle = self.hub.report().particle(index)
            return particle is not None and particle.presence is presence

        self.until(found, f"particle {index} {presence}")

    def until(self, probe: Callable[[], object], what: str) -> None:
        eventually(probe, what, seconds=SECONDS)

    def until_state(self, state: SwarmState) -> None:
        self.until(lambda: self.hub.report().state is state, state)

    def until_kept(self, round_: int) -> None:
        """Wait until the checkpoint of this round is written."""

        def kept() -> bool:
            report = self.hub.report().checkpoint
            return report is not None and report.round == round_

        self.until(kept, f"checkpoint of round {round_}")

    def center(self) -> Tensors:
        """The center's vectors."""
        assert self.hub.center is not None
        return self.hub.center.now.weights

    def stop(self) -> None:
        """Cut everyone off, as a crash would."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()


class World:
    """One job in this process."""

    def __init__(self, folder: Path) -> None:
        self.address_file = folder / "where.json"
        self.checkpoints = folder / "checkpoints"
        self._threads = ThreadPoolExecutor(16)
        self._synchronizers: list[Synchronizer] = []
        self._particles: list[Particle] = []
        self._cables: list[Cable] = []

    def store(self, epoch: int) -> Store:
        """As the synchronizer of this epoch sees the job's checkpoints."""
        return Store(self.checkpoints, uid=UID, epoch=epoch)

    def synchronizer(self, *, keeps: bool = False, **changes: Any) -> Synchronizer:
        """The next incarnation; keeps: with checkpoints, of every round unless the settings say otherwise."""
        epoch = len(self._synchronizers) + 1
        if keeps:
            changes = {"checkpoint": Keeping(interval_seconds=0), **changes}
        store = self.store(epoch) if keeps else None
        synchronizer = Synchronizer(epoch, self.address_file, store=store, **changes)
        self._synchronizers.append(synchronizer)
        return synchronizer

    def cable(self) -> Cable:
        """For one particle."""
        self._cables.append(Cable(self.address_file, self.address_file.with_name(f"cable-{len(self._cables)}.json")))
        return self._cables[-1]

    def surroundings(self, index: int, incarnation: int = 1, uid: str = "", cable: Cable | None = None) -> Surroundings:
        identity = Identity(
            job_uid=UID, index=index, incarnation=incarnation, instance_uid=uid or f"p{index}.{incarnation}"
        )
        return Surroundings(identity, SECRET, address="", address_file=cable.file if cable else self.address_file)

    def particle(
        self,
        index: int,
        incarnation: int = 1,
        uid: str = "",
        model: nn.Module | None = None,
        cable: Cable | None = None,
    ) -> Particle:
        torch.manual_seed(index)
        particle = Particle(self.surroundings(index, incarnation, uid, cable), model or a_model(), self._threads)
        self._particles.append(particle)
        return particle

    def particles(self, count: int, model: Callable[[], nn.Module] = a_model) -> list[Particle]:
        """The swarm's founders, attached."""
        particles = [self.particle(index, model=model()) for index in range(count)]
        for attaching in [particle.attaching() for particle in particles]:
            attaching.result(SECONDS)
        return particles

    def close(self) -> None:
        for particle in self._particles:
            particle.session.close()
        for synchronizer in self._synchronizers:
            synchronizer.stop()
        for cable in self._cables:
            cable.close()
        self._threads.shutdown(cancel_futures=True)


@contextmanager
def a_world(folder: Path) -> Iterator[World]:
    world = World(folder)
    try:
        yield world
    finally:
        world.close()
