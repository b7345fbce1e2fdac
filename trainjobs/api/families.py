"""What is trained: one model per family, each with its networks and its loss."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from trainjobs.api.fields import Model

Width = Annotated[int, Field(ge=1, le=4096)]


class Generator(Model):
    """Maps latents z ~ N(0, I) to samples."""

    architecture: Literal["dcgan", "mlp"] = Field("dcgan", description="dcgan for images, mlp for points.")
    latent_dim: Width = Field(64, description="Dimension of the latent z.")
    channels: Width = Field(64, description="Feature maps at full resolution (dcgan) or units of a hidden layer (mlp).")
    layers: Annotated[int, Field(ge=1, le=16)] = Field(3, description="Hidden layers (mlp only).")
    normalization: Literal["batch", "none"] = Field("batch", description="Normalisation between layers.")


class Discriminator(Model):
    """Scores samples; with a Wasserstein loss this is the critic."""

    architecture: Literal["dcgan", "mlp"] = Field("dcgan", description="dcgan for images, mlp for points.")
    channels: Width = Field(64, description="Feature maps at full resolution (dcgan) or units of a hidden layer (mlp).")
    layers: Annotated[int, Field(ge=1, le=16)] = Field(3, description="Hidden layers (mlp only).")
    normalization: Literal["batch", "none"] = Field("none", description="Normalisation between layers.")
    spectral_norm: bool = Field(False, description="Divide each weight by its largest singular value (Miyato et al., 2018).")


class GanLoss(Model):
    type: Literal["bce", "wgan-gp", "hinge"] = Field("bce", description="bce is the non-saturating loss of Goodfellow et al. (2014).")
    gradient_penalty: Annotated[float, Field(ge=0, le=1e6)] = Field(10.0, description="Weight of the gradient penalty (wgan-gp only).")
    critic_steps: Annotated[int, Field(ge=1, le=100)] = Field(
        1, description="Discriminator steps per generator step; 5 is usual with wgan-gp."
    )


class Gan(Model):
    """A generative adversarial network: engines `generator` and `discriminator`."""

    generator: Generator = Generator()
    discriminator: Discriminator = Discriminator()
    loss: GanLoss = GanLoss()


class VaeNetwork(Model):
    architecture: Literal["conv", "mlp"] = Field("conv", description="conv for images, mlp for points.")
    latent_dim: Width = Field(16, description="Dimension of the latent z.")
    channels: Width = Field(32, description="Feature maps at full resolution (conv) or units of a hidden layer (mlp).")
    layers: Annotated[int, Field(ge=1, le=16)] = Field(2, description="Hidden layers (mlp only).")


class VaeLoss(Model):
    reconstruction: Literal["mse", "bce"] = Field("mse", description="Likelihood of a pixel: Gaussian (mse) or Bernoulli (bce).")
    beta: Annotated[float, Field(ge=0, le=1e6)] = Field(1.0, description="Weight of the KL term (Higgins et al., 2017).")


class Vae(Model):
    """A variational auto-encoder: engine `autoencoder`."""

    network: VaeNetwork = VaeNetwork()
    loss: VaeLoss = VaeLoss()


class UNet(Model):
    architecture: Literal["unet"] = Field("unet", description="A UNet with residual blocks and self-attention at the lowest resolution.")
    channels: Width = Field(32, description="Feature maps at full resolution.")
    multipliers: Annotated[list[Annotated[int, Field(ge=1, le=16)]], Field(min_length=1, max_length=6)] = Field(
        [1, 2], description="Feature maps of each resolution, as multiples of channels; each entry after the first halves the resolution."
    )
    blocks: Annotated[int, Field(ge=1, le=8)] = Field(1, description="Residual blocks per resolution.")
    attention: bool = Field(True, description="Self-attention at the lowest resolution.")


class DiffusionProcess(Model):
    prediction: Literal["epsilon", "v"] = Field(
        "epsilon", description="What the network predicts: the noise (Ho et al., 2020) or v (Salimans and Ho, 2022)."
    )
    schedule: Literal["linear", "cosine"] = Field(
        "cosine", description="Noise schedule: linear (Ho et al., 2020) or cosine (Nichol and Dhariwal, 2021)."
    )
    timesteps: Annotated[int, Field(ge=2, le=10000)] = Field(1000, description="Steps T of the forward process.")


class Sampler(Model):
    name: Literal["ddim"] = Field("ddim", description="DDIM (Song et al., 2021).")
    steps: Annotated[int, Field(ge=1, le=1000)] = Field(50, description="Network evaluations per sample.")
    eta: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="0 is deterministic, 1 is DDPM's variance.")


class Diffusion(Model):
    """A denoising diffusion model: engine `denoiser`."""

    network: UNet = UNet()
    process: DiffusionProcess = DiffusionProcess()
    sampler: Sampler = Sampler()


class Transformer(Model):
    architecture: Literal["gpt2", "llama"] = Field(
        "gpt2", description="Configuration of Hugging Face transformers the network is made from, with random weights."
    )
    layers: Annotated[int, Field(ge=1, le=256)] = Field(4, description="Transformer blocks.")
    hidden: Annotated[int, Field(ge=8, le=65536)] = Field(128, description="Width of the residual stream.")
    heads: Annotated[int, Field(ge=1, le=256)] = Field(4, description="Attention heads; divides hidden.")
    context_length: Annotated[int, Field(ge=2, le=1048576)] = Field(128, description="Tokens of a training sequence.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout probability (gpt2 only).")


class Tokenizer(Model):
    type: Literal["byte", "bpe"] = Field("byte", description="byte: one token per byte; bpe: byte-pair encoding trained on the data.")
    vocabulary_size: Annotated[int, Field(ge=258, le=1048576)] = Field(1024, description="Size of the vocabulary (bpe only).")


class Language(Model):
    """A causal language model: engine `model`."""

    network: Transformer = Transformer()
    tokenizer: Tokenizer = Tokenizer()


class Custom(Model):
    """A user's own networks and objective, by import path."""

    objective: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")] = Field(
        description='"package.module:build", called as build(spec, data) and returning (networks, objective).'
    )
    options: dict[str, Any] = Field({}, description="Passed through to build.")
