"""A swarm of real processes whose weights count: what must be true of them at the end, whatever befell them."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from support.cable import Cable
from support.nursery import Process
from support.processes import Processes, eventually, swarm_of
from support.scripts import training
from support.tally import SAMPLES, order
from swarm_api import env
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_api.settings import Keeping

BATCH, PERIOD = 2, 3
ALGORITHM = Algorithm(name=AlgorithmName.LOCAL_SGD, sync_period=PERIOD)

_IMPORT = f"""
import sys
sys.path.append({str(Path(__file__).parents[1])!r})
from support import tally
"""
_SYNCHRONIZER = f"{_IMPORT}\ntally.become_a_synchronizer()"
_SETUP = f"""
{_IMPORT}
tally.become_a_particle(index)
model = tally.Counts(int(os.environ.get("ROWS", tally.ROWS)))
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
numbers = torch.arange({SAMPLES})
loader = DataLoader(TensorDataset(numbers, numbers.double()), batch_size={BATCH}, shuffle=True)


def pause():
    # The last epoch is slow, so that there is data until the test has seen what it wants and says so.
    if not os.path.exists("go"):
        slow = os.path.exists(f"particle-{{index}} is slow")
        time.sleep((0.03 if epoch < LAST else 0.2) * (10 if slow else 1))
"""
_DRAW = """
say(trains=x.tolist())
model.draw(index, x)
if os.path.exists(f"particle-{index} diverges"):
    os.unlink(f"particle-{index} diverges")
    model.trained.grad.fill_(math.nan)
"""
_CHECK = """
drawn[x] += 1
if not torch.equal(drawn, model.row(index)):
    say(lost=(drawn - model.row(index)).sum().item())
    drawn = model.row(index)
say(pulls=tally.Tally.pulls, at=time.monotonic())
pause()
"""


def _script(epochs: int) -> str:
    setup = _SETUP.replace("LAST", str(epochs - 1))
    return training(
        epochs=epochs,
        one_pass=True,
        pause=0,
        setup=setup,
        attached="drawn = model.row(index)",
        report="",
        before_step=_DRAW,
        after_step=_CHECK,
        end="say(pulls=tally.Tally.pulls)",
    )


class Tallied:
    """Particle 1 is on a cable: most of what befalls a particle befalls this one."""

    def __init__(self, swarm: Processes, cable: Cable, *, epochs: int, keeps: bool) -> None:
        self.swarm = swarm
        self.cable = cable
        self.survivors = set(range(swarm.settings.replicas))
        """Whose first process must see the end."""
        self.diverged: set[int] = set()
        self.incarnations = dict.fromkeys(range(swarm.settings.replicas), 1)
        self.restarts = 0
        self.undone = 0
        """Rounds that were lost with everything: an older checkpoint was all there was."""
        self._epochs = epochs
        self._keeps = keeps
        self._program = swarm.folder / "synchronize.py"
        self._program.write_text(_SYNCHRONIZER)
        self.synchronizer = self._synchronizer()
        self.particles = {index: self.particle(index) for index in sorted(self.survivors)}

    def particle(self, index: int, incarnation: int = 1, **extra: str) -> Process:
        """A process of its own, which the swarm may refuse."""
        if index == 1:
            extra = {env.SYNCHRONIZER_ADDRESS_FILE: str(self.cable.file), **extra}
        return self.swarm.particle(index, incarnation, **extra)

    def replace(self, *indices: int) -> None:
        """As an operator would, whether the last incarnation is dead or not."""
        for index in indices:
            self.survivors.discard(index)
            self.incarnations[index] += 1
            self.particles[index] = self.particle(index, self.incarnations[index])

    def add(self, count: int) -> None:
        """Scale up."""
        replicas = len(self.particles) + count
        changes = {"replicas": replicas, "generation": self.swarm.settings.generation + 1}
        self.swarm.settings = self.swarm.settings.model_copy(update=changes)
        self.swarm.write(self.swarm.settings)
        for index in range(replicas - count, replicas):
            self.survivors.add(index)
            self.incarnations[index] = 1
            self.particles[index] = self.particle(index)

    def kill(self, *indices: int) -> None:
        for index in indices:
            self.particles[index].signal(signal.SIGKILL)
        for index in indices:
            self.particles[index].wait()

    def restart(self) -> None:
        """The next synchronizer."""
        self.restarts += 1
        self.synchronizer = self._synchronizer()

    def dies(self, who: str, process: Process, moment: str) -> None:
        """Have a process kill itself at this moment of its life, and see it dead."""
        self.swarm.touch(order(who, moment))
        assert process.wait() == -signal.SIGKILL

    def merges_without_a_word(self) -> int:
        """Let a push of particle 1 be merged and keep its answer on the wire, until a cut; the round that has it."""
        self.cable.hold()
        assert self.cable.held.wait(30)
        pulls = max(line["pulls"] for line in self.swarm.said("particle-1-1") if "pulls" in line)

        def merges() -> list[int]:
            return [line["round"] for line in self.swarm.history("round") if 1 in line["contributors"]]

        return eventually(lambda: merges()[pulls:], "the merge is written down")[0]

    def goes_on(self, *indices: int) -> None:
        """Wait until each of them has been merged twice more, or all of them have."""
        seen = len(self.swarm.history("round"))

        def merged(index: int) -> int:
            return sum(index in line["contributors"] for line in self.swarm.history("round")[seen:])

        wanted = indices or tuple(self.particles)
        eventually(lambda: all(merged(index) >= 2 for index in wanted), f"particles {wanted} contribute")

    def ends(self) -> None:
        """The data may be used up; everyone is well, and the weights say that nothing was lost or merged twice."""
        swarm = self.swarm
        assert [index for index, particle in self.particles.items() if particle.poll() is not None] == []
        swarm.touch("go")
        assert swarm.ended(self.synchronizer) == 0
        assert [particle.wait() for particle in self.particles.values()] == [0] * len(self.particles)
        counts = swarm.model()["trained"]
        trained, merges = counts[:, :SAMPLES], counts[:, SAMPLES]
        assert torch.equal(trained.sum(0), torch.full((SAMPLES,), float(self._epochs), dtype=torch.float64))
        # A center that was rebuilt may have a merge of one whose answer died, by another whose answer did not.
        rebuilt = self.restarts - len(swarm.history("restored"))
        for index, last in self.incarnations.items():
            names = [f"particle-{index}-{incarnation}" for incarnation in range(1, last + 1)]
            lives = [swarm.said(name) for name in names]
            self._is_whole(index, names, lives)
            drawn = _drawn(lives)
            tails = last - 1 + (index in self.diverged) + self.undone
            assert bool((trained[index] <= drawn).all()), f"particle {index} never drew what is merged of it"
            assert (drawn - trained[index]).sum() <= 2 * PERIOD * BATCH * tails, f"steps of particle {index} are lost"
            known = sum(max((line["pulls"] for line in life if "pulls" in line), default=0) for life in lives)
            known += sum(swarm.log(name).count("was merged, and its answer is lost") for name in names)
            # Whoever is killed may take along that its last push was merged.
            most = known + last - 1 + rebuilt
            assert known - self.undone <= merges[index] <= most, f"merges of particle {index}"
        if not self.restarts:
            told = [index for line in swarm.history("round") for index in line["contributors"]]
            assert [merges[index] for index in self.incarnations] == [told.count(index) for index in self.incarnations]

    def _is_whole(self, index: int, names: list[str], lives: list[list[dict[str, Any]]]) -> None:
        for name, life in zip(names, lives, strict=True):
            steps = [line["step"] for line in life if "step" in line]
            assert all(after == before + 1 for before, after in pairwise(steps)), f"the steps of {name}"
            assert index in self.diverged or not [line for line in life if "lost" in line], f"{name} lost steps"
        assert (len(names) == 1) is (index in self.survivors)

    def _synchronizer(self) -> Process:
        return self.swarm.synchronizer(self.restarts + 1, keeps=self._keeps, program=[str(self._program)])


def _drawn(lives: list[list[dict[str, Any]]]) -> torch.Tensor:
    """How often each sample was drawn, as the processes wrote it down."""
    numbers = [number for life in lives for line in life if "trains" in line for number in line["trains"]]
    return torch.bincount(torch.tensor(numbers, dtype=torch.long), minlength=SAMPLES).double()


@contextmanager
def tallied(
    folder: Path, *, replicas: int = 3, epochs: int = 2, keeps: bool = False, **changes: Any
) -> Iterator[Tallied]:
    """A swarm in which everyone contributes; after the block it goes on, ends, and must have kept count.

    Args:
        folder: For all its files.
        replicas: How many particles it has.
        epochs: Times that all samples are trained; each lasts for 3 s at least, and the last for a minute if need be.
        keeps: With checkpoints, of every round that it can.
        changes: Of the settings.
    """
    settings = {"algorithm": ALGORITHM, "sync": Sync(), "checkpoint": Keeping(interval_seconds=0)} | changes
    with (
        swarm_of(folder, _script(epochs), replicas=replicas, **settings) as swarm,
        closing(Cable(folder / "where.json", folder / "cable.json")) as cable,
    ):
        scene = Tallied(swarm, cable, epochs=epochs, keeps=keeps)
        scene.goes_on()
        yield scene
        scene.goes_on()
        scene.ends()
