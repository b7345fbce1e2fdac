"""The best share of its time that a run can train when it is hit again and again.

With M seconds between two hits, R from a hit to the next step, C the cost of a checkpoint and T the interval between two, a run is away for
R of M, does T/2 again, and of what is left spends C beside every T on checkpoints:

    E(T) = (1 - (R + T/2) / M) / (1 + C / T)

which is greatest near T = sqrt(2CM) (Young, CACM 1974), and there about 1 - sqrt(2C/M) - R/M (with restarts: Daly, FGCS 2006). Both are to
first order in C/M and R/M; the maximum is taken of E itself, over whole numbers of steps.
"""

from __future__ import annotations


def goodput(interval: float, cost: float, restart: float, between: float) -> float:
    """E(T); all in seconds."""
    return max(0.0, 1 - (restart + interval / 2) / between) / (1 + cost / interval)


def best(cost: float, restart: float, between: float, step: float) -> tuple[float, float]:
    """(the best E, the T that gives it), T being a whole number of steps of so many seconds."""
    intervals = [count * step for count in range(1, max(2, int(between / step)))]
    return max((goodput(interval, cost, restart, between), interval) for interval in intervals)
