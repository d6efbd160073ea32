"""The learning rate as a function of how much of the run is done."""

from __future__ import annotations

import math

__all__ = ["learning_rate_factor"]


def learning_rate_factor(done: float, *, warmup: float) -> float:
    """What the peak learning rate is multiplied by: a linear rise, then half a cosine down to zero.

    It depends on the share of the run that is done and not on a number of steps, so a run that goes on with another
    batch size keeps its schedule. After Loshchilov and Hutter, SGDR (2017), with one period.

    Args:
        done: Share of all samples that were read before this step, in [0, 1]; more counts as 1.
        warmup: Share of the run in which the factor rises, in [0, 1).

    Returns:
        A number in [0, 1].
    """
    done = min(max(done, 0.0), 1.0)
    if done < warmup:
        return 0.02 + 0.98 * done / warmup  # not from zero: the first step should count
    return 0.5 * (1.0 + math.cos(math.pi * (done - warmup) / (1.0 - warmup)))
