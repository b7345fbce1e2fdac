"""Learning to draw what is worth more, as users write it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from trainjobs.api.fields import Model, PositiveInt


class Ddpo(Model):
    """Denoising diffusion policy optimisation (Black et al., 2023): a trained model learns to draw what is worth more."""

    reward: Annotated[str, Field(max_length=256, pattern=r"^([A-Za-z_][\w.]*:[A-Za-z_]\w*)?$")] = Field(
        "",
        description="package.module:function, called with images, a float tensor [number, channels, height, width] in [-1, 1], and "
        "prompts, what each was drawn for; it returns a number for each, or None to abstain: nothing is learned of "
        "that image, and its prompt's statistics are without it.",
    )
    clip: Annotated[float, Field(gt=0, le=1)] = Field(1e-4, description="How far the ratio of a step may move from 1 (train.clip_range).")
    advantage_clip: Annotated[float, Field(gt=0, le=1000)] = Field(
        10.0, description="Advantages are held within plus and minus this (train.adv_clip_max)."
    )
    epochs: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Steps on each batch of images (train.num_inner_epochs).")
    prompt_buffer: Annotated[int, Field(ge=2, le=65536)] = Field(
        16, description="Rewards of each prompt that its statistics are of (per_prompt_stat_tracking.buffer_size)."
    )
    prompt_minimum: Annotated[int, Field(ge=2, le=65536)] = Field(
        16, description="Rewards that a prompt must have; before, statistics are those of the batch (per_prompt_stat_tracking.min_count)."
    )
    time_limit: PositiveInt = Field(60, description="Seconds that the reward function may take for a process's images of a step.")
