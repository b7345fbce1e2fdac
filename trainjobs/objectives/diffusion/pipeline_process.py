"""How a pipeline adds noise, what it predicts, and the scale of its latents: what its scheduler and its autoencoder say, and nobody else.

A scheduler's betas are those that diffusers' DDPMScheduler makes of its configuration, whatever scheduler the folder names: they differ in
how they sample, not in what was learned. A flow is x_t = (1 - t) z + t eps with t shifted by the scheduler's shift (flow.py). Latents are
z = (sample - shift_factor) scaling_factor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from trainjobs.api.diffusion import Diffusion
from trainjobs.api.errors import JobError
from trainjobs.data.pretrained import unusable

PREDICTIONS: Mapping[str, Literal["epsilon", "v", "sample"]] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "sample"}


@dataclass(frozen=True)
class PipelineProcess:
    """`abar` is float64 [T] on the CPU, empty for a flow; `time_shift` is a flow's; `scale` and `shift` are of latents."""

    prediction: Literal["epsilon", "v", "sample", "flow"]
    timesteps: int
    abar: Tensor
    time_shift: float
    scale: float
    shift: float


def process_of(scheduler: Mapping[str, Any], vae: Any, family: Diffusion, uri: str) -> PipelineProcess:
    """JobError GTJ0108 where the manifest contradicts the pipeline, GTJ0109 for a scheduler that says nothing of it."""
    from diffusers import DDPMScheduler

    told, where = str(scheduler.get("_class_name", "")), f"{uri}/scheduler/scheduler_config.json"
    timesteps = int(scheduler.get("num_train_timesteps", 1000))
    scale, shift = float(vae.config.scaling_factor), float(getattr(vae.config, "shift_factor", None) or 0.0)
    prediction: Literal["epsilon", "v", "sample", "flow"]
    if told.startswith("FlowMatch"):
        if scheduler.get("use_dynamic_shifting"):
            how = "set use_dynamic_shifting to false, and shift to the number that is meant"
            raise unusable("the pipeline's shift depends on the image's size", where, "use_dynamic_shifting is true", how)
        prediction, abar, time_shift = "flow", torch.empty(0, dtype=torch.float64), float(scheduler.get("shift", 1.0))
    elif "beta_schedule" in scheduler and scheduler.get("prediction_type", "epsilon") in PREDICTIONS:
        prediction, time_shift = PREDICTIONS[scheduler.get("prediction_type", "epsilon")], 1.0
        abar = DDPMScheduler.from_config(dict(scheduler)).alphas_cumprod.double()
    else:
        why = f"{told or 'it'} names no betas, and is no flow"
        raise unusable("the pipeline's scheduler says not how it was trained", where, why, "save the pipeline with its own scheduler")
    agrees(family, prediction, timesteps)
    return PipelineProcess(prediction, timesteps, abar, time_shift, scale, shift)


def agrees(family: Diffusion, prediction: str, timesteps: int) -> None:
    """See that the manifest says nothing else than the pipeline does; the default of prediction says nothing. JobError GTJ0108."""
    asked, where = family.process.prediction, "diffusion.process.prediction"
    if asked not in ("epsilon", prediction):
        why = f"the pipeline was trained to predict {prediction}, as its scheduler says"
        raise JobError("GTJ0108", f"prediction: {asked} of a pipeline of another", where=where, why=why, how="take prediction out")
    if family.process.min_snr_gamma is not None and prediction == "flow":
        where, why = "diffusion.process.minSnrGamma", "the loss of a flow has no weights by signal-to-noise ratio"
        raise JobError("GTJ0108", "minSnrGamma of a pipeline that is a flow", where=where, why=why, how="take minSnrGamma out")
    if family.sampler.eta and prediction == "flow":
        where, why = "diffusion.sampler.eta", "a flow is followed by Euler's method, which adds no noise"
        raise JobError("GTJ0108", "eta of a pipeline that is a flow", where=where, why=why, how="take eta out")
    if prediction != "flow" and family.sampler.steps > timesteps:
        where, why = "diffusion.sampler.steps", "each is visited once at most"
        raise JobError("GTJ0108", f"the pipeline has {timesteps} timesteps", where=where, why=why, how=f"use at most {timesteps} steps")
