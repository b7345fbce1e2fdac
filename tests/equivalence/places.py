"""Where a job is trained to show that it makes no difference: ZeRO stage, workers and accumulation, in as few places as hold every pair.

A fault of DeepSpeed, or of ours, lies in a stage, in a number of workers or in accumulation, or where two of them meet, and rarely in one
job alone. So a job need not go to all twelve places: each goes to three, in which it has every value, and the jobs of a list go to
different ones, so that nine of them have been everywhere.
"""

from __future__ import annotations

from itertools import combinations, product

STAGES = (0, 1, 2)
EVERYWHERE = list(product(STAGES, (1, 2), (1, 2)))  # stage, workers, accumulation
# Two workers that accumulate are in each: what is summed wrongly is summed wrongly there.
CUTS = [((2, 2), *others) for others in combinations(((2, 1), (1, 2), (1, 1)), 2)]


def at_each_stage(number: int) -> list[tuple[int, int, int]]:
    """Three of EVERYWHERE for the job of that number in its list."""
    cuts = CUTS[number // len(STAGES) % len(CUTS)]
    return [(stage, *cuts[(stage + number) % len(cuts)]) for stage in STAGES]
