"""What a step costs more because the model is attached: hooks, report and samples counted, no exchange.

Run: python benchmarks/attach.py [--write]
Prints microseconds per step of the same loop, bare and attached, in interleaved pairs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from _results import may_write, publish

import swarm_trainer as swarm
from swarm_api import env
from swarm_api.algorithm import Algorithm, AlgorithmName
from swarm_api.job import Sync
from swarm_api.settings import Settings

PAIRS = 31
STEPS = 300
BAR_MICROSECONDS = 150.0
RESULT = "attach.md"


def start_synchronizer(folder: Path) -> subprocess.Popen[bytes]:
    """A synchronizer for one particle, and this process' environment as that particle."""
    settings = Settings(
        generation=1,
        job="bench",
        uid="bench",
        seed=0,
        replicas=1,
        min_replicas=1,
        algorithm=Algorithm(name=AlgorithmName.PSOPS, sync_period=1_000_000),
        sync=Sync(max_detached_steps=100_000_000),
    )
    (folder / "settings.json").write_text(settings.model_dump_json(by_alias=True))
    (folder / "secret").write_text("benchmark")
    common = {
        env.JOB_UID: "bench",
        env.INCARNATION: "1",
        env.INSTANCE_UID: "bench",
        env.SECRET_FILE: str(folder / "secret"),
        env.SYNCHRONIZER_ADDRESS_FILE: str(folder / "where.json"),
    }
    os.environ |= {**common, env.PARTICLE_INDEX: "0"}
    listening = {
        env.SYNCHRONIZER_ADDRESS: "127.0.0.1:0",
        env.REPORT_ADDRESS: "127.0.0.1:0",
        env.REPORT_TOKEN_FILE: str(folder / "secret"),
        env.SETTINGS_FILE: str(folder / "settings.json"),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "swarm_trainer.synchronizer"],
        env={**os.environ, **listening},
        stderr=subprocess.DEVNULL,
    )


def a_model() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """About 60 parameters tensors, each tiny, so that only overhead is left to measure."""
    model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(30)))
    return model, torch.optim.SGD(model.parameters(), lr=1e-6)


def microseconds_per_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, particle: swarm.Particle) -> float:
    """Of the loop that every script has."""
    x = torch.randn(4, 8)
    started = time.perf_counter()
    for _ in range(STEPS):
        loss = model(x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        particle.report(loss=loss)
        optimizer.step()
    return (time.perf_counter() - started) / STEPS * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    may_write(parser, RESULT)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        synchronizer = start_synchronizer(Path(folder))
        try:
            bare_model, bare_optimizer = a_model()
            attached_model, attached_optimizer = a_model()
            particle = swarm.attach(attached_model, attached_optimizer)
            nobody = swarm.Particle()
            bare, attached = [], []
            for _ in range(PAIRS):
                bare.append(microseconds_per_step(bare_model, bare_optimizer, nobody))
                attached.append(microseconds_per_step(attached_model, attached_optimizer, particle))
        finally:
            synchronizer.kill()
            synchronizer.wait()
    more = [with_ - without for with_, without in zip(attached, bare, strict=True)]
    quartiles = statistics.quantiles(more, n=4)
    table = "\n".join(
        [
            "| step of 60 parameter tensors, microseconds | median |",
            "|---|---|",
            f"| bare | {statistics.median(bare):.0f} |",
            f"| attached | {statistics.median(attached):.0f} |",
            f"| difference, {PAIRS} interleaved pairs (quartiles) "
            f"| {quartiles[1]:.0f} ({quartiles[0]:.0f}..{quartiles[2]:.0f}), bar {BAR_MICROSECONDS:.0f} |",
        ]
    )
    publish(RESULT, "Cost of attach", "`python benchmarks/attach.py`", table, write=arguments.write)


if __name__ == "__main__":
    main()
