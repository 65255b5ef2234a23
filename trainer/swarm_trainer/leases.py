"""What a particle may train, what it trains, and what it has trained: pure, but for a lock.

The script's threads draw, train and push; the session's thread brings answers, and asks for `work` when it attaches
again. A particle without a synchronizer goes on with its own share, from where the synchronizer left it, and tells
the next one.
"""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from swarm_trainer.wire.units import Spans, Stream, Unit, Units, Work, pack, unpack

_REMEMBERED = 1000
"""Streams of which it can say what it has done in them."""


@dataclass(slots=True, eq=False)
class Pass:
    """One pass over a stream."""

    stream: Stream
    window: int
    """Units in hand after an answer."""
    ready: deque[Unit] = field(default_factory=deque)
    """Given to it; some may be what earlier streams left."""
    drawn: set[Unit] = field(default_factory=set)
    """On their way through the loader."""
    asked: bool = False
    """An answer is due."""
    over: bool = False
    """The last answer was that there is nothing."""
    own: int = 0
    """No unit of its share below this is still to be given."""

    @property
    def wants(self) -> int:
        """Units to ask for now, so that it does not run out; 0: none."""
        few = len(self.ready) <= self.window // 2
        return self.window - len(self.ready) if few and not self.asked and not self.over else 0


class Leases:
    """One particle's units. Methods may be called from any thread."""

    def __init__(self, index: int) -> None:
        self._index = index
        self._lock = threading.Condition()
        self._passes: list[Pass] = []
        self._training: list[Unit] = []
        """In the script's hands; their step is not over."""
        self._trained: list[Unit] = []
        """In the weights, and in no committed push."""
        self._mine: set[Unit] = set()
        """All of them."""
        self._done: dict[Stream, Spans] = {}
        self._left: list[tuple[Stream, tuple[Units, ...]]] = []

    def begin(self, stream: Stream, window: int) -> Pass:
        """A pass begins."""
        begun = Pass(stream, window)
        with self._lock:
            self._passes.append(begun)
        return begun

    def end(self, ended: Pass, *, early: bool) -> None:
        """A pass is over; early: the script left its loop, see `left_early`."""
        with self._lock:
            self._passes.remove(ended)
            untrained = {*ended.ready, *ended.drawn}
            self._mine -= untrained
            if early:
                self._left.append((ended.stream, pack(untrained)))

    def left_early(self) -> list[tuple[Stream, tuple[Units, ...]]]:
        """Streams that the script left since the last call, and the units of each pass that it has not trained.

        Ask when the script has gone on to something else: an error leaves a loop in the same way.
        """
        with self._lock:
            left, self._left = self._left, []
            return left

    def give(self, stream: Stream, units: Sequence[Units]) -> None:
        """The synchronizer's answer for the pass over this stream."""
        with self._lock:
            begun = next((begun for begun in self._passes if begun.stream == stream), None)
            if begun is None:
                self._left.append((stream, tuple(units)))
                return
            begun.asked, begun.over = False, not units
            for unit in unpack(units):
                self._take(begun, unit)
            self._lock.notify_all()

    def unanswered(self) -> None:
        """The synchronizer is gone: there will be no answer."""
        with self._lock:
            for begun in self._passes:
                begun.asked = False
            self._lock.notify_all()

    def wait(self, begun: Pass) -> None:
        """Until the answer is there, or there will be none."""
        with self._lock:
            self._lock.wait_for(lambda: not begun.asked)

    def help_itself(self, begun: Pass, replicas: int) -> None:
        """Without a synchronizer: the next unit of its own share, if there is one."""
        with self._lock:
            ahead = range(begun.own + (self._index - begun.own) % replicas, begun.stream.total, replicas)
            for number in ahead:
                self._take(begun, Unit(begun.stream, number))
                if begun.ready:
                    return

    def draw(self, begun: Pass) -> Unit | None:
        """The next unit for the loader."""
        with self._lock:
            if not begun.ready:
                return None
            unit = begun.ready.popleft()
            begun.drawn.add(unit)
            return unit

    def start(self, begun: Pass, unit: Unit) -> bool:
        """A drawn unit is loaded: whether the script shall have it, or it went to somebody else meanwhile."""
        with self._lock:
            if unit not in begun.drawn:
                return False
            begun.drawn.discard(unit)
            self._training.append(unit)
            return True

    def stepped(self) -> None:
        """The optimizer has stepped: all that the script was given is in the weights."""
        if self._training:
            with self._lock:
                self._trained += self._training
                self._training = []

    def trained(self) -> tuple[Units, ...]:
        """What a push has to say of units."""
        with self._lock:
            return pack(self._trained)

    def committed(self, units: Iterable[Units]) -> None:
        """A push that said so was merged."""
        with self._lock:
            for unit in self._forget(units):
                if unit.stream not in self._done:
                    self._done[unit.stream] = Spans()
                self._done[unit.stream].add(unit.number)
            while len(self._done) > _REMEMBERED:
                del self._done[next(iter(self._done))]

    def lose(self) -> tuple[Units, ...]:
        """What was trained and is in no committed push is lost with the weights: others may train it."""
        with self._lock:
            lost = pack(self._trained + self._training)
            self._training = []
            self._forget(lost)
            # There is something again, for this particle too.
            for begun in self._passes:
                begun.over = False
            return lost

    def work(self) -> Work:
        """What a synchronizer needs to know when this particle attaches again."""
        with self._lock:
            done = [Units(stream=stream, spans=spans.pack()) for stream, spans in self._done.items()]
            untrained = [unit for begun in self._passes for unit in (*begun.ready, *begun.drawn)]
            return Work(
                open=tuple(begun.stream for begun in self._passes),
                done=tuple(done),
                trained=pack(self._trained + self._training),
                untrained=pack(untrained),
            )

    def revoked(self, units: Iterable[Units]) -> None:
        """Others have these: they are not trained here, unless they are already."""
        with self._lock:
            for unit in unpack(units):
                for begun in self._passes:
                    if unit in begun.drawn or unit in begun.ready:
                        begun.drawn.discard(unit)
                        begun.ready = deque(other for other in begun.ready if other != unit)
                        self._mine.discard(unit)

    def _take(self, begun: Pass, unit: Unit) -> None:
        if unit.stream == begun.stream and unit.number >= begun.own:
            begun.own = unit.number + 1
        # What it took by itself while it was on its way back may be given to it once more.
        if unit not in self._mine:
            self._mine.add(unit)
            begun.ready.append(unit)

    def _forget(self, units: Iterable[Units]) -> list[Unit]:
        gone = list(unpack(units))
        known = set(gone)
        self._trained = [unit for unit in self._trained if unit not in known]
        self._mine -= known
        return gone
