"""A training's metrics.jsonl, as a synchronizer writes it."""

import json
import math

BEGAN = 1_770_000_000.0
AWAY = range(41, 56)
"""Rounds without particle 2, of a hundred."""


def line(kind, time, **fields):
    return json.dumps({"kind": kind, "time": time, **fields})


def lines(particles=4, rounds=100, *, center=True, metrics=("accuracy",), away=True, every=10, silent=()):
    """A swarm whose loss falls; particle 2 is lost and comes back, `silent` ones attach and never report."""
    out = [line("attached", BEGAN, particle=index, incarnation=1, round=0, samples=0) for index in range(particles)]
    for number in range(1, rounds + 1):
        time, samples, loss = BEGAN + 2 * number, 640 * number, 2.3 * math.exp(-number / rounds * 5)
        gone = away and number * 100 // rounds in AWAY
        there = [index for index in range(particles) if index not in silent and not (gone and index == 2)]
        if away and number == AWAY.start * rounds // 100:
            out.append(line("detached", time - 1, particle=2, incarnation=1, round=number, samples=samples, why="EOF"))
        if away and number == AWAY.stop * rounds // 100:
            out.append(line("attached", time - 1, particle=2, incarnation=2, round=number, samples=samples))
        losses = {str(index): loss * (1 + index / 10) for index in there}
        out.append(line("round", time, round=number, contributors=there, samples=samples, losses=losses))
        if number % every == 0 and metrics:
            report = {"incarnation": 1, "samples": samples, "values": dict.fromkeys(metrics, 1 - loss / 3)}
            out += [line("metrics", time, particle=index, of="particle", **report) for index in there]
            if center:
                report["values"] = {**report["values"], "loss": loss / 2}
                out.append(line("metrics", time, particle=0, of="center", **report))
    return out
