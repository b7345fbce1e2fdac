"""Techniques and what proves them, one row each: the field as manifests write it, the ZeRO stages at which weights after some steps were
compared with a plain torch loop's (none where no weight depends on it), the test that holds it, what it is compared with, and the largest
difference seen."""

from __future__ import annotations

from typing import TypedDict


class Technique(TypedDict):
    technique: str
    field: str
    stages: tuple[int, ...]
    test: str
    reference: str
    difference: str


TECHNIQUES: list[Technique] = [
    {
        "technique": "x0 prediction",
        "field": "spec.diffusion.process.prediction",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_loss.py::test_sampling_is_diffusers_ddim",
        "reference": "diffusers' DDPMScheduler and DDIMScheduler, prediction_type sample",
        "difference": "8e-7 of a noised pixel, 2e-7 of a sample",
    },
    {
        "technique": "scaled-linear schedule",
        "field": "spec.diffusion.process.schedule",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_loss.py::test_schedules_are_those_of_diffusers",
        "reference": "diffusers' DDPMScheduler, beta_schedule scaled_linear",
        "difference": "5e-7 of abar",
    },
    {
        "technique": "min-SNR weights",
        "field": "spec.diffusion.process.minSnrGamma",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_weights.py::test_min_snr_loss_is_that_of_diffusers_script",
        "reference": "diffusers' compute_snr and training script; denoising-diffusion-pytorch's loss_weight",
        "difference": "2e-6 of a weight, relative",
    },
    {
        "technique": "zero terminal SNR",
        "field": "spec.diffusion.process.zeroTerminalSnr",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_weights.py::test_zero_terminal_schedules_are_diffusers",
        "reference": "diffusers' rescale_zero_terminal_snr and DDIMScheduler",
        "difference": "8e-9 of abar, 9e-7 of a sample",
    },
    {
        "technique": "flow matching",
        "field": "spec.diffusion.process.prediction",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_flow.py::test_sampling_is_diffusers_euler",
        "reference": "diffusers' FlowMatchEulerDiscreteScheduler",
        "difference": "3e-7 of a sample",
    },
    {
        "technique": "logit-normal times",
        "field": "spec.diffusion.process.timeSampling",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_flow.py::test_logit_normal_times_are_those_of_diffusers",
        "reference": "diffusers' compute_density_for_timestep_sampling, quantiles of 10 million",
        "difference": "1.1e-4 of a quantile",
    },
    {
        "technique": "shifted times",
        "field": "spec.diffusion.process.shift",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_flow.py::test_times_that_are_drawn_follow_their_distribution",
        "reference": "diffusers' FlowMatchEulerDiscreteScheduler, shift 3",
        "difference": "3e-7 of a sample",
    },
    {
        "technique": "learned variance",
        "field": "spec.diffusion.process.learnedVariance",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_bound.py::test_sampling_with_learned_variance_is_diffusers_ddpm",
        "reference": "torch.distributions; denoising-diffusion-pytorch's step losses; diffusers' DDPMScheduler, learned_range",
        "difference": "3e-7 bits, 4e-6 bits (five digits printed), 2e-6 of a sample",
    },
    {
        "technique": "learned noise schedule",
        "field": "spec.diffusion.process.schedule",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_diffusion_learned.py::test_two_interiors_with_the_same_ends_give_the_same_bound",
        "reference": "the information of a Gaussian in closed form; autograd's slope",
        "difference": "1 % of the bound, from 4,096 samples",
    },
    {
        "technique": "KL annealing",
        "field": "spec.vae.loss.annealing",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_vae_annealing.py::test_cyclical_annealing_is_the_paper_s",
        "reference": "Fu et al., equations 6 and 7; torch.distributions",
        "difference": "1e-6 of a weight",
    },
    {
        "technique": "free bits",
        "field": "spec.vae.loss.freeBits",
        "stages": (0, 1, 2, 3),
        "test": "tests/objectives/test_vae_annealing.py::test_free_bits_are_of_each_sample_and_dimension",
        "reference": "torch.distributions",
        "difference": "1e-5 of a loss, relative",
    },
    {
        "technique": "active units",
        "field": "spec.evaluation.metrics",
        "stages": (),
        "test": "tests/evaluate/test_active_units.py::test_dimensions_that_move_by_more_than_a_tenth_are_active",
        "reference": "numpy's variance",
        "difference": "0",
    },
]
