"""What happens when something goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Duration, Model, seconds
from trainjobs.api.only import only, unless
from trainjobs.api.rule import Breach, Rule


class LossSpike(Model):
    """What counts as a spike of a loss."""

    z_score: Annotated[float, Field(gt=1, le=1000)] = Field(
        8.0, description="A loss spikes when it is this many standard deviations above its moving average."
    )
    window: Annotated[int, Field(ge=2, le=10**6)] = Field(
        100, description="Steps over which average and deviation are taken; none is a spike before so many."
    )


class Recovery(Model):
    """What happens after a failure."""

    max_retries: Annotated[int, Field(ge=0, le=100)] = Field(
        3, description="Restarts after application failures; infrastructure failures are free."
    )
    on_non_finite_loss: Literal["rollback", "halt"] = Field("rollback", description="What a NaN or infinite loss does.")
    on_loss_spike: Literal["ignore", "warn", "rollback"] = Field(
        "ignore", description="What a loss far above its moving average does. Losses of GANs and rewards jump by nature."
    )
    loss_spike: Annotated[LossSpike, only(on_loss_spike=unless("ignore"))] = LossSpike()
    max_rollbacks: Annotated[int, Field(ge=1, le=100), only(on_non_finite_loss="rollback", on_loss_spike="rollback")] = Field(
        3, description="How often an attempt goes back to a checkpoint and leaves batches out before it fails."
    )
    on_collapse: Literal["warn", "halt"] = Field(
        "warn", description="What a GAN does whose generator has collapsed (GTJ0220). halt: it fails, after a checkpoint."
    )
    stall_timeout: Duration = Field(
        "30m", description="Time without a step, or a pass of an evaluation that goes on, after which the job counts as stalled."
    )


def timeout_is_positive(timeout: str) -> Iterator[Breach]:
    if seconds(timeout) == 0:
        yield Breach((), f'"{timeout}" is not allowed for stallTimeout', "every step takes longer than that", "write 30m, say")


RULES = (
    Rule(
        "spec.recovery.stallTimeout",
        "GTJ0102",
        timeout_is_positive,
        "self.matches('[1-9]')",
        "stallTimeout must be longer than nothing",
    ),
)
