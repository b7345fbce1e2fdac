"""Techniques for images, each with what holds it: where it is in a manifest, at which ZeRO stages its weights after some steps were
compared with those of a plain torch loop, by which test, against what, and the largest difference that was seen there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Technique:
    """`field` is the path in a manifest, without `spec.`; `test` is file::name; `difference` is absolute unless it says of what."""

    name: str
    field: str
    stages: tuple[int, ...]
    test: str
    reference: str
    difference: str


_MATRIX = "tests/equivalence/test_gan_matrix.py::test_follows_plain_torch"
_LOSSES = "tests/objectives/test_gan_losses.py"
_REGULAR = "tests/objectives/test_gan_regularizers.py"
_LOOP = "plain torch loop, weights after 10 steps"
_GAN = (0, 1, 2)
_CONDITIONED = "tests/equivalence/test_conditioned.py"
_AUGMENT = "tests/data/test_augment.py"

TECHNIQUES = (
    Technique("non-saturating loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, "3e-8"),
    Technique("minimax loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("least squares", "gan.loss.type", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("hinge loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("Wasserstein loss, clipped", "gan.loss.type", _GAN, _MATRIX, _LOOP, "9.5e-8"),
    Technique("weight clipping", "gan.loss.weightClip", _GAN, _MATRIX, _LOOP, "9.5e-8"),
    Technique("gradient penalty", "gan.loss.gradientPenalty", _GAN, _MATRIX, _LOOP, "7.5e-8"),
    Technique("drift", "gan.loss.drift", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("one-sided label smoothing", "gan.loss.realLabel", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("critic steps", "gan.loss.criticSteps", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("R1", "gan.regularization.r1", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique(
        "R1",
        "gan.regularization.r1.gamma",
        _GAN,
        f"{_REGULAR}::test_r1_is_that_of_finite_differences_in_float64",
        "finite differences in float64",
        "1.4e-7",
    ),
    Technique("lazy regularisation", "gan.regularization.r1.every", _GAN, _MATRIX, _LOOP, "1.6e-7"),
    Technique("orthogonal regularisation", "gan.regularization.orthogonal", _GAN, _MATRIX, _LOOP, "6e-8"),
    Technique("self-attention, generator", "gan.generator.attention", _GAN, _MATRIX, _LOOP, "7.5e-8"),
    Technique("self-attention, discriminator", "gan.discriminator.attention", _GAN, _MATRIX, _LOOP, "7.5e-8"),
    Technique("spectral norm, generator", "gan.generator.spectralNorm", _GAN, _MATRIX, _LOOP, "1.1e-8"),
    Technique("spectral norm, discriminator", "gan.discriminator.spectralNorm", _GAN, _MATRIX, _LOOP, "1.1e-8"),
    Technique("minibatch deviation", "gan.discriminator.minibatchDeviation.group", _GAN, _MATRIX, _LOOP, "7.5e-8"),
    Technique(
        "DiffAugment",
        "gan.augment.policy",
        _GAN,
        "tests/objectives/test_gan_diffaugment.py::test_pixels_are_those_of_the_authors_functions",
        "lightweight-gan 1.2.1, pixels",
        "0.0",
    ),
    Technique(
        "x0 prediction",
        "diffusion.process.prediction",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_loss.py::test_sampling_is_diffusers_ddim",
        "diffusers' DDPMScheduler and DDIMScheduler, prediction_type sample",
        "8e-7 of a noised pixel, 2e-7 of a sample",
    ),
    Technique(
        "scaled-linear schedule",
        "diffusion.process.schedule",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_loss.py::test_schedules_are_those_of_diffusers",
        "diffusers' DDPMScheduler, beta_schedule scaled_linear",
        "5e-7 of abar",
    ),
    Technique(
        "min-SNR weights",
        "diffusion.process.minSnrGamma",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_weights.py::test_min_snr_loss_is_that_of_diffusers_script",
        "diffusers' compute_snr and training script; denoising-diffusion-pytorch's loss_weight",
        "2e-6 of a weight, relative",
    ),
    Technique(
        "zero terminal SNR",
        "diffusion.process.zeroTerminalSnr",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_weights.py::test_zero_terminal_schedules_are_diffusers",
        "diffusers' rescale_zero_terminal_snr and DDIMScheduler",
        "8e-9 of abar, 9e-7 of a sample",
    ),
    Technique(
        "flow matching",
        "diffusion.process.prediction",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_flow.py::test_sampling_is_diffusers_euler",
        "diffusers' FlowMatchEulerDiscreteScheduler",
        "3e-7 of a sample",
    ),
    Technique(
        "logit-normal times",
        "diffusion.process.timeSampling",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_flow.py::test_logit_normal_times_are_those_of_diffusers",
        "diffusers' compute_density_for_timestep_sampling, quantiles of 10 million",
        "1.1e-4 of a quantile",
    ),
    Technique(
        "shifted times",
        "diffusion.process.shift",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_flow.py::test_times_that_are_drawn_follow_their_distribution",
        "diffusers' FlowMatchEulerDiscreteScheduler, shift 3",
        "3e-7 of a sample",
    ),
    Technique(
        "learned variance",
        "diffusion.process.learnedVariance",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_bound.py::test_sampling_with_learned_variance_is_diffusers_ddpm",
        "torch.distributions; denoising-diffusion-pytorch's step losses; diffusers' DDPMScheduler, learned_range",
        "3e-7 bits, 4e-6 bits (five digits printed), 2e-6 of a sample",
    ),
    Technique(
        "learned noise schedule",
        "diffusion.process.schedule",
        (0, 1, 2, 3),
        "tests/objectives/test_diffusion_learned.py::test_two_interiors_with_the_same_ends_give_the_same_bound",
        "the information of a Gaussian in closed form; autograd's slope",
        "1 % of the bound, from 4,096 samples",
    ),
    Technique(
        "KL annealing",
        "vae.loss.annealing",
        (0, 1, 2, 3),
        "tests/objectives/test_vae_annealing.py::test_cyclical_annealing_is_the_paper_s",
        "Fu et al., equations 6 and 7; torch.distributions",
        "1e-6 of a weight",
    ),
    Technique(
        "free bits",
        "vae.loss.freeBits",
        (0, 1, 2, 3),
        "tests/objectives/test_vae_annealing.py::test_free_bits_are_of_each_sample_and_dimension",
        "torch.distributions",
        "1e-5 of a loss, relative",
    ),
    Technique(
        "active units",
        "evaluation.metrics",
        (),
        "tests/evaluate/test_active_units.py::test_dimensions_that_move_by_more_than_a_tenth_are_active",
        "numpy's variance",
        "0",
    ),
    *(
        Technique(name, field, (0, 2, 3), f"{_CONDITIONED}::test_follows_plain_torch", "plain torch loop, diffusers' DDPMScheduler", "1e-6")
        for name, field in (
            ("class conditioning", "diffusion.conditioning.type"),
            ("text conditioning", "diffusion.conditioning.type"),
            ("dropped conditions", "diffusion.conditioning.dropout"),
        )
    ),
    Technique(
        "text encoder",
        "diffusion.conditioning.width",
        (0, 2, 3),
        "tests/models/test_condition.py::test_a_layer_is_torchs_encoder_layer",
        "torch's TransformerEncoderLayer",
        "2e-6",
    ),
    Technique(
        "attention to a text",
        "diffusion.conditioning.heads",
        (0, 2, 3),
        "tests/models/test_condition.py::test_cross_attention_is_diffusers",
        "diffusers' Attention",
        "2e-6",
    ),
    Technique(
        "classifier-free guidance",
        "diffusion.sampler.guidance",
        (),
        "tests/objectives/test_diffusion_guidance.py::test_samples_are_led_as_diffusers_pipelines_lead_them",
        "the formula of diffusers' StableDiffusionPipeline",
        "0.0",
    ),
    Technique(
        "transformer over patches (DiT)",
        "diffusion.network.architecture",
        (0, 2, 3),
        "tests/models/test_dit.py::test_its_numbers_are_diffusers",
        "diffusers' DiTTransformer2DModel",
        "1e-5",
    ),
    Technique(
        "attention at chosen resolutions",
        "diffusion.network.attentionResolutions",
        (0, 2, 3),
        f"{_CONDITIONED}::test_follows_plain_torch",
        "plain torch loop, diffusers' DDPMScheduler",
        "1e-6",
    ),
    *(
        Technique(name, f"data.images.{field}", (), f"{_AUGMENT}::test_each_change_is_torchvisions", f"torchvision 0.28.0, {of}", "2e-6")
        for name, field, of in (
            ("random rotation", "strength.rotation", "rotate"),
            ("random crop", "strength.crop", "pad and crop"),
            ("colour jitter", "augment", "adjust_brightness, contrast, saturation, hue"),
        )
    ),
)
