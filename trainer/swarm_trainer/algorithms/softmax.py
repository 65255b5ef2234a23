"""How much each particle counts by its loss, such that noise does not choose."""

import math
import statistics
from collections.abc import Sequence

from swarm_trainer.algorithms.base import Fitness

MAD_OF_NORMAL = 1.4826
"""A normal sample's standard deviation over the median of its absolute deviations from its median."""


def softmax_weights(fitness: Sequence[Fitness], temperature: float) -> list[float]:
    """Weights that sum to 1, larger for lower losses: w_i ~ exp(-B (f_i - min f) / (T sqrt(m^2 + e^2))).

    e^2 is the noise of the comparison: the (low) median of the squared standard errors, or the best particle's
    own if that is larger. B = max(0, 1 - e^2 / s^2), with s^2 the sample variance of the losses, is the share of
    their variance that noise does not explain (the James-Stein factor with its variance component estimated as
    in Hedges and Olkin 1985). m is the spread of the losses by their median absolute deviation.

    Why not exp((min f - f_i) / (T sqrt(s^2 + e^2)))? That alone lets noise choose: the best of p equal particles
    is always about as many s ahead as p is large, so that two whose losses differ by one standard error already
    count 0.71 to 0.29. With B, losses within a range of one standard error count exactly the same (s^2 <= e^2
    follows), pure noise leaves 0.96 p and more effective particles on average (p = 2..16), and clear
    differences get the weights of the plain formula. The medians keep a particle that diverges out of it: its
    loss would widen s until it counts exp(-sqrt(p)), 4 % of p = 4, and its own standard error, as large, would
    excuse it. A lucky particle is not helped by its noise, since e^2 holds its own. Two particles have no
    spread but their difference: at T = 1 the worse of two never counts less than 0.2.

    Args:
        fitness: Finite means, at least one. An infinite standard error means that it is unknown.
        temperature: T > 0; towards 0 the best counts alone, unless B is 0.
    """
    lowest = min(each.mean for each in fitness)
    span = max(each.mean for each in fitness) - lowest
    if span == 0 or len(fitness) == 1:
        return [1 / len(fitness)] * len(fitness)
    # In units of the span, so that no square overflows.
    losses = [(each.mean - lowest) / span for each in fitness]
    noises = [(each.standard_error / span) * (each.standard_error / span) for each in fitness]
    noise = max(statistics.median_low(noises), noises[losses.index(0.0)])
    signal = max(0.0, 1 - noise / statistics.variance(losses))
    middle = statistics.median(losses)
    spread = MAD_OF_NORMAL * statistics.median(abs(loss - middle) for loss in losses)
    scale = temperature * math.sqrt(spread * spread + noise)
    shares = [math.exp(-signal * loss / scale) if scale > 0 else float(loss == 0) for loss in losses]
    total = sum(shares)
    return [share / total for share in shares]
