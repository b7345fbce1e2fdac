"""Optimizers, the course of their learning rates, and when a run has learned enough."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model
from trainjobs.api.only import only, unless


class Optimizer(Model):
    """The optimizer of one network."""

    name: Literal["adam", "adamw", "rmsprop", "sgd", "muon"] = Field(
        "adamw",
        description="torch.optim's optimizer of that name. muon is for matrices; biases, norms, embeddings and filters of convolutions are "
        "adamw's, at the same rate. ZeRO stage 0 only.",
    )
    learning_rate: Annotated[float, Field(gt=0, le=100)] = Field(1e-3, description="Peak learning rate.")
    betas: Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2), only(name=("adam", "adamw", "muon"))] = (
        Field([0.9, 0.999], description="Adam's and AdamW's decay rates.")
    )
    weight_decay: Annotated[float, Field(ge=0, le=10)] = Field(0.0, description="Decoupled for adamw and muon, L2 otherwise.")
    momentum: Annotated[float, Field(ge=0, lt=1), only(name=("rmsprop", "sgd"), because="whose momentum is betas[0]")] = Field(
        0.0, description="Momentum."
    )
    alpha: Annotated[float, Field(ge=0, lt=1), only(name="rmsprop")] = Field(
        0.99, description="How much the mean of squared gradients keeps at each step [rho, smoothing]."
    )
    eps: Annotated[float, Field(gt=0, le=1), only(name=unless("sgd"))] = Field(
        1e-8, description="Added to the root by which the gradient is divided [adam_epsilon]; of muon, for what adamw updates."
    )
    muon_momentum: Annotated[float, Field(ge=0, lt=1), only(name="muon")] = Field(0.95, description="Momentum of muon's matrices.")


MetricName = Annotated[str, Field(min_length=1, max_length=63)]
Mode = Literal["auto", "min", "max"]
BETTER = "Whether lower or higher is better; auto: as the metric is known, else min."
_FALLS = only(name="plateau")


class Schedule(Model):
    """How the learning rate changes over the steps."""

    name: Literal["constant", "linear", "cosine", "plateau"] = Field(
        "constant",
        description="Shape after the warm-up; plateau multiplies the rate by factor whenever an evaluation's metric no longer gets better "
        "[ReduceLROnPlateau].",
    )
    warmup_steps: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(0, description="Steps of linear warm-up from 0.")
    final_ratio: Annotated[float, Field(ge=0, le=1), only(name=("linear", "cosine"))] = Field(
        0.0, description="Learning rate of the last step, as a share of the peak."
    )
    metric: Annotated[MetricName, _FALLS] = Field("heldout/loss", description="Name of an evaluation metric.")
    mode: Annotated[Mode, _FALLS] = Field("auto", description=BETTER)
    factor: Annotated[float, Field(gt=0, lt=1), _FALLS] = Field(0.1, description="What the rate is multiplied by.")
    patience: Annotated[int, Field(ge=0, le=100_000), _FALLS] = Field(
        10, description="Evaluations running that may be no better before the rate falls."
    )
    threshold: Annotated[float, Field(ge=0, lt=1), _FALLS] = Field(
        1e-4, description="By which share of the best so far the metric must be better to count."
    )
    cooldown: Annotated[int, Field(ge=0, le=100_000), _FALLS] = Field(
        0, description="Evaluations after a fall of the rate that do not count."
    )
    min_ratio: Annotated[float, Field(ge=0, le=1), _FALLS] = Field(0.0, description="The rate falls to this share of the peak at most.")


class EarlyStopping(Model):
    """Ends the run, as one that succeeded, when a metric no longer gets better."""

    metric: MetricName = Field("heldout/loss", description="Name of an evaluation metric [monitor, metric_for_best_model].")
    mode: Mode = Field("auto", description=BETTER)
    patience: Annotated[int, Field(ge=1, le=100_000)] = Field(
        3, description="Evaluations running without a better one [early_stopping_patience]."
    )
    min_delta: Annotated[float, Field(ge=0, le=1e6)] = Field(
        0.0, description="By how much more than nothing the metric must be better to count [early_stopping_threshold]."
    )
