"""Techniques for images, each with what holds it: where it is in a manifest, at which ZeRO stages, by which test, against what, and the
largest difference that was seen there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Technique:
    """`field` is the path in a manifest, without `spec.`; `test` is file::name; `difference` is absolute."""

    name: str
    field: str
    stages: tuple[int, ...]
    test: str
    reference: str
    difference: float


_MATRIX = "tests/equivalence/test_gan_matrix.py::test_follows_plain_torch"
_LOSSES = "tests/objectives/test_gan_losses.py"
_REGULAR = "tests/objectives/test_gan_regularizers.py"
_LOOP = "plain torch loop, weights after 10 steps"
_GAN = (0, 1, 2)

TECHNIQUES = (
    Technique("non-saturating loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, 3e-8),
    Technique("minimax loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, 6e-8),
    Technique("least squares", "gan.loss.type", _GAN, _MATRIX, _LOOP, 6e-8),
    Technique("hinge loss", "gan.loss.type", _GAN, _MATRIX, _LOOP, 6e-8),
    Technique("Wasserstein loss, clipped", "gan.loss.type", _GAN, _MATRIX, _LOOP, 9.5e-8),
    Technique("weight clipping", "gan.loss.weightClip", _GAN, _MATRIX, _LOOP, 9.5e-8),
    Technique("gradient penalty", "gan.loss.gradientPenalty", _GAN, _MATRIX, _LOOP, 7.5e-8),
    Technique("drift", "gan.loss.drift", _GAN, _MATRIX, _LOOP, 6e-8),
    Technique("one-sided label smoothing", "gan.loss.realLabel", _GAN, _MATRIX, _LOOP, 6e-8),
    Technique("critic steps", "gan.loss.criticSteps", _GAN, _MATRIX, _LOOP, 6e-8),
    Technique("R1", "gan.regularization.r1", _GAN, _MATRIX, _LOOP, 6e-8),
    Technique(
        "R1",
        "gan.regularization.r1.gamma",
        _GAN,
        f"{_REGULAR}::test_r1_is_that_of_finite_differences_in_float64",
        "finite differences in float64",
        1.4e-7,
    ),
    Technique("lazy regularisation", "gan.regularization.r1.every", _GAN, _MATRIX, _LOOP, 1.6e-7),
    Technique("orthogonal regularisation", "gan.regularization.orthogonal", _GAN, _MATRIX, _LOOP, 6e-8),
    Technique("self-attention, generator", "gan.generator.attention", _GAN, _MATRIX, _LOOP, 7.5e-8),
    Technique("self-attention, discriminator", "gan.discriminator.attention", _GAN, _MATRIX, _LOOP, 7.5e-8),
    Technique("spectral norm, generator", "gan.generator.spectralNorm", _GAN, _MATRIX, _LOOP, 1.1e-8),
    Technique("spectral norm, discriminator", "gan.discriminator.spectralNorm", _GAN, _MATRIX, _LOOP, 1.1e-8),
    Technique("minibatch deviation", "gan.discriminator.minibatchDeviation.group", _GAN, _MATRIX, _LOOP, 7.5e-8),
    Technique(
        "DiffAugment",
        "gan.augment.policy",
        _GAN,
        "tests/objectives/test_gan_diffaugment.py::test_pixels_are_those_of_the_authors_functions",
        "lightweight-gan 1.2.1, pixels",
        0.0,
    ),
)
