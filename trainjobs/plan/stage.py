"""The ZeRO stage: the lowest that fits, because every stage costs communication and hooks."""

from __future__ import annotations

# Share of a device's memory that model states may take; the rest is activations, buffers and the allocator's slack.
STATES_SHARE = 0.6


def states_bytes(parameters: int, stage: int, workers: int, precision: str, frozen: int = 0) -> int:
    """Bytes of weights, gradients and Adam's states on one worker (Rajbhandari et al., "ZeRO", 2020, section 3 and figure 1).

    fp32: 4 weights + 4 gradients + 8 moments; bf16 and fp16: 2 + 2 + 12 (fp32 master and moments). At stage 0 these are 4 + 4 + 8 as
    well: the same sum. Weights that are not trained are weights alone, split at stage 3 as well.
    """
    weights, gradients, optimizer = (4, 4, 8) if precision == "fp32" else (2, 2, 12)
    optimizer /= workers if stage >= 1 else 1  # type: ignore[assignment]
    gradients /= workers if stage >= 2 else 1  # type: ignore[assignment]
    weights /= workers if stage >= 3 else 1  # type: ignore[assignment]
    return int(parameters * (weights + gradients + optimizer) + frozen * weights)


def lowest_stage(parameters: int, workers: int, precision: str, memory: int, highest: int = 3, frozen: int = 0) -> int:
    """The lowest stage whose model states fit into a share of `memory` bytes; `highest` when none does."""
    for stage in range(highest + 1):
        if states_bytes(parameters, stage, workers, precision, frozen) <= STATES_SHARE * memory:
            return stage
    return highest
