"""What the operator tells Prometheus of itself. Labels have few values: never a job's or a pod's name."""

import importlib.metadata
from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from swarm_api.status import JobState, Recovery

_RECONCILE: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RECOVERY: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 20, 30, 45, 60, 120, 300)
_REASONS: Final = frozenset(
    {
        *("Error", "Killed", "OOMKilled", "ExitedEarly", "Unresponsive", "Deleted", "Evicted", "NodeLost"),
        *("InitContainerFailed", "PreemptionByScheduler", "EvictionByEvictionAPI", "DeletionByTaintManager"),
        *("DeletionByPodGC", "TerminationByKubelet", "UnexpectedAdmissionError", "NodeAffinity", "NodeShutdown"),
    }
)


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(
        self, *, states: Callable[[], Iterable[JobState]], depth: Callable[[], int], silence: Callable[[], float]
    ) -> None:
        """`states` of all jobs, `depth` of the work queue, seconds of `silence` of the pods, as they are asked for."""
        self.registry = CollectorRegistry()
        self.reconcile = Histogram(
            "swarm_operator_reconcile_seconds",
            "Time to look at one job and to do what is to be done",
            buckets=_RECONCILE,
            registry=self.registry,
        )
        self._replacements = Counter(
            "swarm_operator_replacements",
            "Particles and synchronizers that were replaced, by why the one before ended",
            ["reason"],
            registry=self.registry,
        )
        self._recovery = Histogram(
            "swarm_operator_recovery_seconds",
            "Phases from the end of a particle to the first contribution of its replacement",
            ["phase"],
            buckets=_RECOVERY,
            registry=self.registry,
        )
        self._requests = Counter(
            "swarm_operator_api_requests",
            "Requests to the API server; code 0: it was not reached",
            ["verb", "code"],
            registry=self.registry,
        )
        self.restarts = Counter(
            "swarm_operator_watch_restarts", "How often the watches had to begin anew", registry=self.registry
        )
        silent = Gauge(
            "swarm_operator_pod_watch_silent_seconds",
            "Since anything was heard of the pods of some namespace; about a minute is usual, where nothing happens",
            registry=self.registry,
        )
        silent.set_function(silence)
        waiting = Gauge("swarm_operator_workqueue_depth", "Jobs that wait to be looked at", registry=self.registry)
        waiting.set_function(depth)
        build = Gauge("swarm_operator_build_info", "Always 1", ["version"], registry=self.registry)
        build.labels(importlib.metadata.version("swarm-training")).set(1)
        self.registry.register(_Jobs(states))

    def requested(self, verb: str, code: int) -> None:
        """The API server answered."""
        self._requests.labels(verb, str(code)).inc()

    def replaced(self, reason: str) -> None:
        """A replacement was asked for one that ended so."""
        known = "AdmissionRejected" if reason.startswith("OutOf") else reason if reason in _REASONS else "Other"
        self._replacements.labels(known).inc()

    def recovered(self, recovery: Recovery) -> None:
        """A replacement contributes again."""
        phases = {
            "detect": recovery.detect_seconds,
            "schedule": recovery.schedule_seconds,
            "start": recovery.start_seconds,
            "rejoin": recovery.rejoin_seconds,
        }
        for phase, seconds in phases.items():
            if seconds is not None:
                self._recovery.labels(phase).observe(seconds)


class _Jobs(Collector):
    def __init__(self, states: Callable[[], Iterable[JobState]]) -> None:
        self._states = states

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("swarm_operator_jobs", "Jobs by state", labels=["state"])
        found = Tally(self._states())
        for state in JobState:
            family.add_metric([state.value], found[state])
        yield family
