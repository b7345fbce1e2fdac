"""GANs, VAEs and diffusion models in the trainers that people use: accelerate, Lightning, pythae, a script as diffusers has it.

Each gets networks, data [N, ...], the batch, the rate and a Clock, and trains until the clock has seen all steps: fused AdamW, fp32, no
logging, no files, no evaluation, data from torch's DataLoader in the same process.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from bench.clock import Clock, Enough
from bench.plain_loops import Networks, adamw

LATENT = 64


def loader(data: Tensor, size: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(data), size, shuffle=True, drop_last=True)


def steps(loader: Any, clock: Clock) -> Iterator[tuple[int, Tensor]]:
    """(the number of the step, its batch), over as many epochs as it takes."""
    batches = chain.from_iterable(repeat(loader))
    for step in range(1, clock.total + 1):
        yield step, next(batches)[0]


def gan_accelerate(networks: Networks, data: Tensor, size: int, rate: float, clock: Clock) -> None:
    from accelerate import Accelerator

    own = Accelerator(cpu=True)
    generator, discriminator = networks["generator"], networks["discriminator"]
    g, d, g_optimizer, d_optimizer, batches = own.prepare(
        generator, discriminator, adamw(generator, rate), adamw(discriminator, rate), loader(data, size)
    )
    for step, x in steps(batches, clock):
        with torch.no_grad():
            fake = g(torch.randn(size, LATENT, device=own.device))
        own.backward(F.softplus(-d(x)).mean() + F.softplus(d(fake)).mean())
        d_optimizer.step()
        d_optimizer.zero_grad()
        d.requires_grad_(False)
        own.backward(F.softplus(-d(g(torch.randn(size, LATENT, device=own.device)))).mean())
        g_optimizer.step()
        g_optimizer.zero_grad()
        d.requires_grad_(True)
        clock.ended(step)


def lightning(module: Any, data: Tensor, size: int, clock: Clock) -> None:
    """`module.training_step`, and the clock after each."""
    from lightning import Callback, Trainer

    class Ended(Callback):  # type: ignore[misc]
        def on_train_batch_end(self, trainer: Any, told: Any, outputs: Any, batch: Any, index: int) -> None:
            self.step = getattr(self, "step", 0) + 1
            clock.ended(self.step)
            if self.step == clock.total:
                trainer.should_stop = True

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(accelerator="cpu", devices=1, max_epochs=-1, callbacks=[Ended()], **quiet).fit(module, loader(data, size))


def gan_lightning(networks: Networks, data: Tensor, size: int, rate: float, clock: Clock) -> None:
    from lightning import LightningModule

    class Gan(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.discriminator = networks["generator"], networks["discriminator"]
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [adamw(self.generator, rate), adamw(self.discriminator, rate)]

        def training_step(self, batch: Any, index: int) -> None:
            (x,) = batch
            g_optimizer, d_optimizer = self.optimizers()
            self.toggle_optimizer(d_optimizer)
            with torch.no_grad():
                fake = self.generator(torch.randn(size, LATENT, device=self.device))
            self.manual_backward(F.softplus(-self.discriminator(x)).mean() + F.softplus(self.discriminator(fake)).mean())
            d_optimizer.step()
            d_optimizer.zero_grad()
            self.untoggle_optimizer(d_optimizer)
            self.toggle_optimizer(g_optimizer)
            self.manual_backward(F.softplus(-self.discriminator(self.generator(torch.randn(size, LATENT, device=self.device)))).mean())
            g_optimizer.step()
            g_optimizer.zero_grad()
            self.untoggle_optimizer(g_optimizer)

    lightning(Gan(), data, size, clock)


def vae_lightning(networks: Networks, data: Tensor, size: int, rate: float, clock: Clock) -> None:
    from lightning import LightningModule

    class Vae(LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.autoencoder = networks["autoencoder"]

        def configure_optimizers(self) -> Any:
            return adamw(self.autoencoder, rate)

        def training_step(self, batch: Any, index: int) -> Any:
            (x,) = batch
            output, mean, logvar = self.autoencoder(torch.randn(size, 16, device=self.device), x)
            return (0.5 * (x - output).square().sum() + 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum()) / size

    lightning(Vae(), data, size, clock)


def vae_pythae(networks: Networks, data: Tensor, size: int, rate: float, clock: Clock) -> None:
    from pythae.data.datasets import BaseDataset
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.trainers import BaseTrainer, BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.own: Any = networks["autoencoder"].encoder

        def forward(self, x: Tensor) -> Any:
            mean, logvar = self.own(x).chunk(2, dim=1)
            return ModelOutput(embedding=mean, log_covariance=logvar)

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.own: Any = networks["autoencoder"].decoder

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.own(z))

    class Ended(TrainingCallback):  # type: ignore[misc]
        step = 0

        def on_train_step_end(self, training_config: Any, **told: Any) -> None:
            self.step += 1
            clock.ended(self.step)
            if self.step == clock.total:
                raise Enough

    model = VAE(VAEConfig(input_dim=tuple(data.shape[1:]), latent_dim=16, reconstruction_loss="mse"), Encoder(), Decoder())
    with tempfile.TemporaryDirectory() as folder:
        told = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1000,
            per_device_train_batch_size=size,
            learning_rate=rate,
            optimizer_cls="AdamW",
            optimizer_params={"weight_decay": 0.0, "fused": True},
            no_cuda=True,
        )
        trainer = BaseTrainer(model, BaseDataset(data, torch.zeros(len(data))), training_config=told, callbacks=[Ended()])
        with suppress(Enough):
            trainer.train()


def diffusion_script(networks: Networks, data: Tensor, size: int, rate: float, clock: Clock) -> None:
    """As diffusers' script of unconditional generation goes, without its moving average, clipping and warm-up: the job has none."""
    from accelerate import Accelerator
    from diffusers import DDPMScheduler

    own, schedule = Accelerator(cpu=True), DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")
    model, optimizer, batches = own.prepare(networks["denoiser"], adamw(networks["denoiser"], rate), loader(data, size))
    for step, x in steps(batches, clock):
        noise = torch.randn(x.shape, device=x.device)
        timesteps = torch.randint(0, schedule.config.num_train_timesteps, (size,), device=x.device).long()
        noisy = schedule.add_noise(x, noise, timesteps)
        with own.accumulate(model):
            own.backward(F.mse_loss(model(noisy, timesteps).float(), noise.float()))
            optimizer.step()
            optimizer.zero_grad()
        clock.ended(step)
