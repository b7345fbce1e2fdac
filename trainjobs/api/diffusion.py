"""A diffusion model, as users write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api import denoiser
from trainjobs.api.ddpo import Ddpo
from trainjobs.api.denoiser import Conditioning, Denoiser
from trainjobs.api.diffusion_pretrained import Adapt, Pipeline
from trainjobs.api.fields import Model
from trainjobs.api.latents import Latents
from trainjobs.api.only import only, unless
from trainjobs.api.rule import Breach, Rule

_WEIGHTS = "whose loss has no weights by signal-to-noise ratio"
_ENDS = "whose path ends in pure noise by itself"


class DiffusionProcess(Model):
    """How noise is added, and what the network predicts of it."""

    prediction: Literal["epsilon", "v", "sample", "flow"] = Field(
        "epsilon",
        description="What the network predicts: epsilon, the noise (Ho et al., 2020); v (Salimans and Ho, 2022); sample, the image x_0; "
        "flow, the velocity from image to noise on the straight path between them (Lipman et al., 2023) [prediction_type, "
        "parameterization].",
    )
    schedule: Annotated[
        Literal["linear", "cosine", "scaled-linear", "learned"],
        only(prediction=unless("flow"), because="whose path is straight"),
    ] = Field(
        "cosine",
        description="Noise schedule: linear (Ho et al., 2020), cosine (Nichol and Dhariwal, 2021), scaled-linear (that of Stable "
        "Diffusion), or learned with the network, in continuous time (Kingma et al., 2021) [beta_schedule].",
    )
    timesteps: Annotated[int, Field(ge=2, le=10000)] = Field(
        1000,
        description="Steps T of the forward process [num_train_timesteps]. With flow and the learned schedule, whose time t goes from 0 to "
        "1, the network is told T t.",
    )
    time_sampling: Annotated[Literal["uniform", "logit-normal"], only(prediction="flow")] = Field(
        "uniform", description="How t is drawn: uniformly, or as the sigmoid of a standard normal (Esser et al., 2024) [weighting_scheme]."
    )
    shift: Annotated[float, Field(gt=0, le=100), only(prediction="flow")] = Field(
        1.0,
        description="Moves t towards noise, in training and in sampling: shift t / (1 + (shift - 1) t); 3 is usual for large images "
        "[shift, flow_shift, discrete_flow_shift].",
    )
    min_snr_gamma: Annotated[
        Annotated[float, Field(gt=0, le=1e6)] | None,
        only(prediction=unless("flow"), because=_WEIGHTS),
        only(schedule=unless("learned"), because="whose loss is the bound itself"),
    ] = Field(
        None,
        description="Weighs each timestep by its signal-to-noise ratio, at most this (Hang et al., 2023); 5 is usual [snr_gamma]. Without, "
        "all count alike.",
    )
    zero_terminal_snr: Annotated[
        bool,
        only(prediction=unless("flow"), because=_ENDS),
        only(schedule=unless("learned"), because="whose ends are fixed"),
    ] = Field(
        False,
        description="Rescales the schedule so that the last timestep is pure noise, from which sampling starts (Lin et al., 2023) "
        "[rescale_betas_zero_snr]. With prediction v or sample.",
    )
    learned_variance: Annotated[
        bool,
        only(prediction=unless("flow"), because="whose samples follow from the velocity alone"),
        only(schedule=unless("learned"), because="whose steps are too small for it to matter"),
    ] = Field(
        False,
        description="The network predicts the variance of each step as well, by a part of the variational bound in the loss (Nichol and "
        "Dhariwal, 2021); sampling uses it where sampler.eta is above 0 [variance_type: learned_range, learn_sigma].",
    )


DEFAULT_STEPS = 50


class Sampler(Model):
    """How samples are drawn."""

    name: Literal["ddim"] = Field(
        "ddim",
        description="DDIM (Song et al., 2021); of a flow it is Euler's method, which DDIM is on a straight path [DDIMScheduler, "
        "FlowMatchEulerDiscreteScheduler].",
    )
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(
        DEFAULT_STEPS,
        description="Network evaluations per sample, at most process.timesteps, of the default as many as there are; any number with flow "
        "and the learned schedule [num_inference_steps].",
    )
    eta: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="0 is deterministic, 1 is DDPM's variance. Not with flow.")
    guidance: Annotated[float, Field(ge=0, le=100)] = Field(
        1.0,
        description="Classifier-free guidance: w in f(nothing) + w (f(condition) - f(nothing)); 1 is none, 2 to 8 are usual; Ho and "
        "Salimans' w is one less [guidance_scale, cfg_scale].",
    )


class Diffusion(Model):
    """A denoising diffusion model: engines `denoiser`, and `noise_schedule` where the noise schedule is learned."""

    network: Denoiser = Denoiser()
    latents: Latents | None = Field(None, description="Diffuses latents of a frozen autoencoder; without it, pixels.")
    pretrained: Pipeline | None = Field(None, description="A trained pipeline that the run goes on from, instead of a network of its own.")
    adapt: Adapt | None = Field(None, description="What is trained of the pretrained pipeline; without it, all of its denoiser.")
    conditioning: Conditioning | None = Field(None, description="What samples are drawn for; without it, for nothing.")
    process: DiffusionProcess = DiffusionProcess()
    sampler: Sampler = Sampler()
    method: Literal["denoising", "ddpo"] = Field(
        "denoising",
        description="denoising: to undo noise of the data; ddpo: to draw what is worth more, from a model that was trained before "
        "(training.initialWeights).",
    )
    ddpo: Annotated[Ddpo, only(method="ddpo")] = Ddpo()

    @property
    def adapted(self) -> Adapt:
        """What is trained of a pretrained pipeline."""
        return self.adapt or Adapt()

    @property
    def continuous(self) -> bool:
        """Whether time has no steps, so that a sampler may take as many as it wants."""
        return self.process.prediction == "flow" or self.process.schedule == "learned"

    @property
    def evaluations(self) -> int:
        """Passes of the network that a sample takes."""
        return self.sampler.steps if self.continuous else min(self.sampler.steps, self.process.timesteps)


def guidance_is_learned(diffusion: Diffusion) -> Iterator[Breach]:
    """Guidance leads away from what the network says without a condition, which it must have learned."""
    if diffusion.sampler.guidance == 1.0 or diffusion.pretrained is not None:  # pipelines have learned it
        return
    if diffusion.conditioning is None:
        why, how = "there is no condition to be guided by", "add diffusion.conditioning, or take guidance out"
        yield Breach(("sampler", "guidance"), "guidance without conditioning", why, how, on_key=True)
    elif diffusion.conditioning.dropout == 0:
        why = "the network never learns what there is without a condition, which guidance leads away from"
        how = "set conditioning.dropout to 0.1, or take guidance out"
        yield Breach(("sampler", "guidance"), "guidance with conditioning.dropout: 0", why, how, on_key=True)


def timesteps_suffice(diffusion: Diffusion) -> Iterator[Breach]:
    """A sampler visits a timestep once. The default may be too many for few of them: the API server writes it out (notes.py tells)."""
    steps, timesteps = diffusion.sampler.steps, diffusion.process.timesteps
    if not diffusion.continuous and steps > timesteps and steps != DEFAULT_STEPS:
        what = f"a sampler of {steps} steps, and {timesteps} timesteps to take"
        how = f"use at most {timesteps} steps, or more timesteps"
        yield Breach(("sampler", "steps"), what, "each timestep is visited once at most", how, beside=("process", "timesteps"))


def terminal_step_is_predicted(process: DiffusionProcess) -> Iterator[Breach]:
    """x_0 = (x_t - s_t eps) / a_t, and a_t is 0 at the last step."""
    if process.zero_terminal_snr and process.prediction == "epsilon":
        what = "zeroTerminalSnr with prediction: epsilon"
        why = "the last step is pure noise, and the noise that is in it says nothing of the image (Lin et al., 2023, section 3.2)"
        yield Breach(("zeroTerminalSnr",), what, why, "use prediction: v or sample", beside=("prediction",))


def learned_schedule_predicts_noise(process: DiffusionProcess) -> Iterator[Breach]:
    if process.schedule == "learned" and process.prediction in ("v", "sample"):
        what = f"schedule: learned with prediction: {process.prediction}"
        why = "its loss is the variational bound in terms of the noise (Kingma et al., 2021, equation 17)"
        yield Breach(("schedule",), what, why, "use prediction: epsilon, or another schedule", beside=("prediction",))


def flow_is_deterministic(diffusion: Diffusion) -> Iterator[Breach]:
    if diffusion.process.prediction == "flow" and diffusion.sampler.eta != 0:
        why = "a flow is followed by Euler's method, which adds no noise"
        yield Breach(("sampler", "eta"), "eta has no effect with prediction: flow", why, "take eta out", on_key=True)


def ddpo_has_a_density(diffusion: Diffusion) -> Iterator[Breach]:
    if diffusion.method != "ddpo":
        return
    if not diffusion.ddpo.reward:
        yield Breach(("ddpo",), "ddpo without a reward", "it is what is learned from", "name a function in ddpo.reward", on_key=True)
    if diffusion.continuous:
        how = "use another prediction and schedule"
        yield Breach(("method",), "ddpo of a flow or a learned schedule", "its samples are drawn without noise", how)
    elif diffusion.sampler.eta == 0:
        why = "a step without noise has no density, whose ratio is learned from"
        yield Breach(("sampler", "eta"), "ddpo with eta: 0", why, "set sampler.eta to 1")
    if diffusion.latents is not None:
        yield Breach(("latents",), "ddpo of latents", "its steps are those of pixels", "train pixels, or take method out", on_key=True)
    if diffusion.evaluations < 2:
        yield Breach(("sampler", "steps"), "ddpo with one step", "the last step adds no noise", "use at least 2 steps")
    if diffusion.ddpo.prompt_minimum > diffusion.ddpo.prompt_buffer:
        what = f"promptMinimum {diffusion.ddpo.prompt_minimum} above promptBuffer {diffusion.ddpo.prompt_buffer}"
        yield Breach(("ddpo", "promptMinimum"), what, "no prompt ever has as many", "lower it, or raise promptBuffer")


RULES = (
    *denoiser.RULES,
    Rule(
        "spec.diffusion",
        "GTJ0108",
        ddpo_has_a_density,
        "self.method != 'ddpo' || (self.ddpo.reward != '' && self.process.prediction != 'flow' && self.process.schedule != 'learned' && "
        "self.sampler.eta > 0.0 && self.sampler.steps > 1 && !has(self.latents) && self.ddpo.promptMinimum <= self.ddpo.promptBuffer)",
        "ddpo needs a reward, a sampler.eta above 0, at least 2 steps, no flow, no learned schedule, no latents, and a promptMinimum of at "
        "most promptBuffer",
    ),
    Rule(
        "spec.diffusion",
        "GTJ0108",
        timesteps_suffice,
        f"self.process.prediction == 'flow' || self.process.schedule == 'learned' || self.sampler.steps <= self.process.timesteps || "
        f"self.sampler.steps == {DEFAULT_STEPS}",
        "sampler.steps is more than process.timesteps: each timestep is visited once at most",
    ),
    Rule(
        "spec.diffusion",
        "GTJ0108",
        flow_is_deterministic,
        "self.process.prediction != 'flow' || self.sampler.eta == 0.0",
        "sampler.eta has no effect with prediction: flow, which Euler's method follows without noise",
    ),
    Rule(
        "spec.diffusion",
        "GTJ0108",
        guidance_is_learned,
        "self.sampler.guidance == 1.0 || has(self.pretrained) || (has(self.conditioning) && self.conditioning.dropout > 0.0)",
        "sampler.guidance needs conditioning with a dropout above 0: what it leads away from must be learned",
    ),
    Rule(
        "spec.diffusion.process",
        "GTJ0108",
        terminal_step_is_predicted,
        "!self.zeroTerminalSnr || self.prediction != 'epsilon'",
        "zeroTerminalSnr with prediction: epsilon, which says nothing of the image at the last step: use v or sample",
    ),
    Rule(
        "spec.diffusion.process",
        "GTJ0108",
        learned_schedule_predicts_noise,
        "self.schedule != 'learned' || !(self.prediction in ['v', 'sample'])",
        "schedule: learned needs prediction: epsilon, the noise, in which its loss is written",
    ),
)
