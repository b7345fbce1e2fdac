"""A generative adversarial network, as users write it. What must hold of it stands in gan_rules.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, Width
from trainjobs.api.only import only
from trainjobs.api.training import Optimizer

# What the networks of each architecture make and judge.
LEARNS = {"dcgan": "image", "mlp": "point", "pggan": "image", "sagan": "image", "stylegan2": "image"}
Architecture = Literal["dcgan", "mlp", "pggan", "sagan", "stylegan2"]
ARCHITECTURE = (
    "dcgan, sagan (residual blocks with spectral norm on every layer and self-attention; Zhang et al., 2019), pggan (equalised rates and "
    "pixel norm, which may grow; Karras et al., 2018) and stylegan2 (Karras et al., 2020) for images, mlp for points."
)
CHANNELS = "Feature maps at full resolution, or units of a hidden layer (mlp)."
PLAIN = ("dcgan", "mlp")
WHOLE = "whose layers are scaled and normalised as they are"
Layers = Annotated[int, Field(ge=1, le=16), only(architecture="mlp", because="whose depth follows from the image size")]
Resolutions = Annotated[
    list[Annotated[int, Field(ge=4, le=128)]],
    Field(max_length=6),
    only(architecture=("dcgan", "sagan"), because="whose points have no places, or whose features are modulated instead"),
]
ATTENTION = (
    "Resolutions of feature maps, in pixels, after which self-attention stands (Zhang et al., 2019; 32 there); sagan has it at 32, or at "
    "half of the images' size where that is less, unless others are named [attn_g_loc, attn_d_loc]."
)
Every = Annotated[int, Field(ge=1, le=1000)]


class MinibatchDeviation(Model):
    """One more feature map before the last layer: how much samples of a group differ, which shows a collapsed generator up (Karras et al.,
    2018) [mbstd]."""

    group: Annotated[int, Field(ge=2, le=64)] = Field(
        4, description="Consecutive samples of the global batch that are compared; training.batch.micro is a multiple [mbstd_group_size]."
    )


class Generator(Model):
    """Maps latents z ~ N(0, I) to samples."""

    architecture: Architecture = Field("dcgan", description=ARCHITECTURE)
    latent_dim: Width = Field(64, description="Dimension of the latent z.")
    channels: Width = Field(64, description=CHANNELS)
    layers: Layers = Field(3, description="Hidden layers.")
    normalization: Annotated[Literal["batch", "none"], only(architecture=(*PLAIN, "sagan"), because=WHOLE, harmless=("none",))] = Field(
        "batch", description="Normalisation between layers."
    )
    spectral_norm: Annotated[bool, only(architecture=PLAIN, because=WHOLE)] = Field(
        False, description="Divide each weight by its largest singular value (Zhang et al., 2019) [apply_g_sn]."
    )
    attention: Resolutions = Field([], description=ATTENTION)
    mapping_layers: Annotated[int, Field(ge=1, le=16), only(architecture="stylegan2")] = Field(
        8, description="Layers between z and the styles w; their rate is 0.01 of the others' (Karras et al., 2019) [map_depth]."
    )
    style_mixing: Annotated[float, Field(ge=0, le=1), only(architecture="stylegan2")] = Field(
        0.9,
        description="Share of the generated samples whose layers, from a random one on, take the style of another latent (Karras et al., "
        "2019) [style_mixing_prob].",
    )
    truncation: Annotated[float, Field(gt=0, le=1), only(architecture="stylegan2")] = Field(
        1.0,
        description="How far samples go from the mean style: below 1 they are more alike and have fewer faults. Training does not see "
        "it; the mean is that of 10,000 fixed latents [truncation_psi].",
    )


class Discriminator(Model):
    """Scores samples; with a Wasserstein loss this is the critic."""

    architecture: Architecture = Field("dcgan", description=ARCHITECTURE)
    channels: Width = Field(64, description=CHANNELS)
    layers: Layers = Field(3, description="Hidden layers.")
    normalization: Annotated[Literal["batch", "none"], only(architecture=PLAIN, because=WHOLE)] = Field(
        "none", description="Normalisation between layers."
    )
    spectral_norm: Annotated[bool, only(architecture=PLAIN, because=WHOLE)] = Field(
        False, description="Divide each weight by its largest singular value (Miyato et al., 2018) [apply_d_sn]."
    )
    attention: Resolutions = Field([], description=ATTENTION)
    minibatch_deviation: MinibatchDeviation | None = Field(
        None,
        description="One more feature map before the last layer: how much the samples of a group differ, which shows a collapsed generator "
        "up (Karras et al., 2018) [mbstd].",
    )


WASSERSTEIN = ("wgan", "wgan-gp")


class GanLoss(Model):
    """What generator and discriminator minimise."""

    type: Literal["bce", "minimax", "lsgan", "hinge", "wgan", "wgan-gp"] = Field(
        "bce",
        description="bce: the non-saturating loss of Goodfellow et al. (2014) [logistic]. minimax: the game itself, whose generator learns "
        "nothing from a sure discriminator [vanilla]. lsgan: least squares (Mao et al., 2017) [LS]. hinge (Lim and Ye, 2017). wgan: "
        "Wasserstein with clipped weights (Arjovsky et al., 2017). wgan-gp: with a gradient penalty (Gulrajani et al., 2017).",
    )
    gradient_penalty: Annotated[float, Field(ge=0, le=1e6), only(type="wgan-gp", harmless=(0.0,))] = Field(
        10.0, description="Weight of the gradient penalty [gp_lambda]."
    )
    weight_clip: Annotated[float, Field(gt=0, le=100), only(type="wgan")] = Field(
        0.01, description="After every step of the critic each weight is cut to at most this size [wc_bound, clip_value]."
    )
    drift: Annotated[float, Field(ge=0, le=1e6), only(type=WASSERSTEIN, because="whose scores cannot drift away together")] = Field(
        0.0, description="Weight of E D(x)^2, which keeps scores near 0; 0.001 is usual (Karras et al., 2018) [iwass_epsilon]."
    )
    real_label: Annotated[float, Field(gt=0, le=1), only(type=("bce", "minimax", "lsgan"), because="whose real samples have no label")] = (
        Field(
            1.0,
            description="What the discriminator is to say of real samples, one-sided: of generated ones always 0. 0.9 is usual (Salimans "
            "et al., 2016) [label_smoothing].",
        )
    )
    critic_steps: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Discriminator steps per generator step; 5 is usual with wgan and wgan-gp [d_updates_per_step, n_critic]."
    )


class R1(Model):
    """gamma / 2 times the mean of |grad D(x)|^2 over real samples (Mescheder et al., 2018)."""

    gamma: Annotated[float, Field(gt=0, le=1e6)] = Field(10.0, description="Its weight; grows with the pixels [r1_gamma].")
    every: Every = Field(
        16,
        description="Steps between two of its own optimizer steps, each with so many times its weight; the discriminator's Adam is "
        "corrected for it (Karras et al., 2020). 1: a part of every discriminator loss [D_reg_interval].",
    )


class PathLength(Model):
    """A step in the latents' space is to move the image as far everywhere (Karras et al., 2020), for generators with a mapping network."""

    weight: Annotated[float, Field(gt=0, le=1e6)] = Field(2.0, description="Its weight [pl_weight].")
    decay: Annotated[float, Field(gt=0, le=1)] = Field(
        0.01, description="How far the mean length that is aimed at moves each time; a checkpoint keeps it [pl_decay]."
    )
    every: Every = Field(
        4,
        description="Steps between two of its own optimizer steps, each with so many times its weight; the generator's Adam is corrected "
        "for it (Karras et al., 2020). 1: a part of every generator loss [G_reg_interval].",
    )
    batch_shrink: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Of so many samples of the batch one takes part; training.batch.micro is a multiple [pl_batch_shrink]."
    )


class Regularization(Model):
    """What is added to the losses."""

    r1: R1 | None = Field(
        None,
        description="A penalty on the discriminator's gradient at real samples (Mescheder et al., 2018).",
    )
    path_length: PathLength | None = Field(
        None,
        description="A step in the latents' space is to move the image as far everywhere (Karras et al., 2020), for generators with a "
        "mapping network.",
    )
    orthogonal: Annotated[float, Field(ge=0, le=1e3)] = Field(
        0.0,
        description="Weight of |W W^T * (1 - I)|^2 over the generator's layers, which keeps their filters apart; 0.0001 is usual (Brock et "
        "al., 2019) [ortho_reg].",
    )


Policy = Annotated[list[Literal["color", "translation", "cutout"]], Field(min_length=1, max_length=3), only(type="diffaug")]
Pipeline = Annotated[list[Literal["blit", "geom", "color"]], Field(min_length=1, max_length=3), only(type="ada")]


class Augment(Model):
    """Augmentation that the discriminator sees, of real and of generated samples alike, so that a small data set lasts longer."""

    type: Literal["diffaug", "ada"] = Field(
        "diffaug",
        description="diffaug: differentiable augmentation of everything (Zhao et al., 2020). ada: of as much as the discriminator needs "
        "(Karras et al., 2020).",
    )
    policy: Policy = Field(
        ["color", "translation", "cutout"],
        description="In this order. color: brightness, saturation and contrast. translation: by up to an eighth of the size. cutout: a "
        "grey square of half the size [diffaugment, aug_types].",
    )
    pipeline: Pipeline = Field(
        ["blit", "geom", "color"],
        description="blit: mirrored, turned by quarters, shifted by whole pixels. geom: scaled, turned, stretched and shifted. color: "
        "brightness, contrast, and of colours luma, hue and saturation [augpipe: bgc].",
    )
    target: Annotated[float, Field(ge=0, le=1), only(type="ada")] = Field(
        0.6, description="Mean sign of the discriminator's scores of real samples that the strength is to lead to [ada_target]."
    )
    every_steps: Annotated[int, Field(ge=1, le=1000), only(type="ada")] = Field(
        4, description="Steps between two changes of the strength [ada_interval]."
    )
    images: Annotated[int, Field(ge=1, le=10**9), only(type="ada")] = Field(
        500_000,
        description="Real samples that are shown while the strength goes from 0 to 1; 100000 is usual from pretrained weights [ada_kimg, "
        "in thousands].",
    )


class Progressive(Model):
    """Growing: training begins with small images, and layers for larger ones come one after the other (Karras et al., 2018)."""

    start: Literal[4, 8, 16, 32, 64, 128, 256, 512] = Field(4, description="Size of the first images, in pixels [initial resolution].")
    fade_images: Annotated[int, Field(ge=0, le=10**9)] = Field(
        600_000,
        description="Real samples that are shown while the layers of a size are faded in, from nothing to all [lod_transition_kimg, in "
        "thousands].",
    )
    stable_images: Annotated[int, Field(ge=1, le=10**9)] = Field(
        600_000, description="Real samples that are shown of each size before the next one [lod_training_kimg, in thousands]."
    )


class Gan(Model):
    """A generative adversarial network: engines `generator` and `discriminator`."""

    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    loss: GanLoss = GanLoss()
    regularization: Regularization = Regularization()
    conditional: bool = Field(
        False,
        description="Samples are drawn for a class, and judged as one of it: conditional batch norm in the generator (de Vries et al., "
        "2017), or with stylegan2 an embedding of the class beside the latent; the discriminator projects on the class (Miyato and Koyama, "
        "2018). The data has labels (data.columns.label, data.labels: folder) [cBN, PD, cond].",
    )
    progressive: Progressive | None = Field(
        None,
        description="Growing: training begins with small images, and layers for larger ones come one after the other (Karras et al., "
        "2018), for pggan networks. With each size the optimizers begin anew.",
    )
    augment: Augment | None = Field(
        None,
        description="Augmentation that the discriminator sees, of real and of generated samples alike, so that a small data set lasts "
        "longer. Samples and evaluation are never augmented.",
    )

    @property
    def shown(self) -> int:
        """Batches of real samples that a step shows: those of the discriminator's main phase, by which a GAN's clock goes."""
        return self.loss.critic_steps

    @property
    def styled(self) -> bool:
        """Whether the generator has a mapping network."""
        return self.generator.architecture == "stylegan2"

    @property
    def r1_beside(self) -> R1 | None:
        """R1 where it is a part of every discriminator loss."""
        r1 = self.regularization.r1
        return r1 if r1 is not None and r1.every == 1 else None

    @property
    def r1_lazy(self) -> R1 | None:
        """R1 where it has optimizer steps of its own."""
        r1 = self.regularization.r1
        return r1 if r1 is not None and r1.every > 1 else None

    @property
    def path_lazy(self) -> PathLength | None:
        """Path length where it has optimizer steps of its own."""
        path = self.regularization.path_length
        return path if path is not None and path.every > 1 else None

    @property
    def lazy(self) -> Mapping[str, int]:
        """By network, its optimizer steps between two of a regulariser that has steps of its own; {} without any."""
        path = {"generator": self.path_lazy.every} if self.path_lazy else {}
        return {**path, **({"discriminator": self.r1_lazy.every * self.loss.critic_steps} if self.r1_lazy else {})}


def corrected(settings: Optimizer, interval: int) -> Optimizer:
    """Adam's settings for k + 1 steps where k were meant: with c = k / (k + 1), a rate of lr c, and betas^c (Karras et al., "Analyzing and
    improving the image quality of StyleGAN", 2020, arXiv 1912.04958, appendix B)."""
    c = interval / (interval + 1)
    return settings.model_copy(update={"learning_rate": settings.learning_rate * c, "betas": [beta**c for beta in settings.betas]})
