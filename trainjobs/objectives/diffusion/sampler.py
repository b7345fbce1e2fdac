"""Which timesteps a sampler visits."""

from __future__ import annotations


def trailing_steps(timesteps: int, steps: int) -> list[int]:
    """At most `steps` timesteps, from timesteps - 1 down, evenly spaced: [999, 749, 499, 249] for (1000, 4)."""
    steps = min(steps, timesteps)
    return [round(timesteps - k * timesteps / steps) - 1 for k in range(steps)]
