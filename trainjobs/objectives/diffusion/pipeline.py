"""Fine-tuning of a pipeline in the latents of its autoencoder: the loss that the pipeline was trained with, on other pictures.

epsilon, v, sample   mean (f(z_t, t, c) - target)^2, z_t = a_t z + s_t eps, t uniform, min-SNR's weights where asked for (objective.py)
flow                 mean (f(z_t, T t, c) - (eps - z))^2, z_t = (1 - t) z + t eps, t shifted as the pipeline's scheduler does (flow.py)

z is drawn from the autoencoder's posterior by the sample's own noise at each step. DreamBooth: L = L_instance + lambda L_class, B pictures
of the class beside the B of the thing in one pass (Ruiz et al., 2023, arXiv 2208.12242, equation 2; evaluate/class_images.py draws them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn

from trainjobs.api.diffusion import Diffusion
from trainjobs.models.new_words import NewWords
from trainjobs.models.pipeline_network import PipelineNetwork
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.flow import shifted, times
from trainjobs.objectives.diffusion.pipeline_process import PipelineProcess
from trainjobs.objectives.diffusion.prediction import Prediction, image, target, weight
from trainjobs.objectives.diffusion.sampler import Visit, ddim, spread, told, unbounded, visits
from trainjobs.objectives.diffusion.texts import Texts, chosen, texts_of
from trainjobs.objectives.phase import Batch, Phase, Rows, Samples, over

MEAN, LOGVAR, IDS = "latent_mean", "latent_logvar", "ids_"


@dataclass
class PipelineObjective:
    """`prompts` are those of pictures without captions, int64 [N, T] for each encoder, and `nothing` the empty one, [1, T]; `classes` are
    latents of pictures of the class, mean and log-variance, float [N, C, h, w], once there are some, and `class_ids` their prompt."""

    network: PipelineNetwork
    vae: nn.Module
    process: PipelineProcess
    family: Diffusion
    texts: Texts
    nothing: tuple[Tensor, ...]
    prompts: tuple[Tensor, ...]
    shape: tuple[int, ...]  # of latents
    words: str  # what samples are drawn for, where nothing is asked for
    class_ids: tuple[Tensor, ...] = ()
    classes: tuple[Tensor, Tensor] | None = None
    _scales: dict[torch.device, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="denoiser", loss=self.denoising),)

    @property
    def highest_stage(self) -> int:
        return 3

    def encode(self, rows: Rows) -> Rows:
        """Of pictures the posterior of their latents, in fp32; of captions the text encoders' ids."""
        x = rows["image"].float()
        with torch.autocast(x.device.type, enabled=False):
            posterior = cast(Any, self.vae).encode(x).latent_dist
        found = {**rows, MEAN: posterior.mean, LOGVAR: posterior.logvar}
        if "caption" in rows and not self.prompts:
            ids = self.texts.ids(texts_of(rows["caption"]), "data.columns.caption")
            found |= {f"{IDS}{number}": own.to(x.device) for number, own in enumerate(ids)}
        return found

    def denoising(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        noise, size = batch.noise, batch.size
        z = self.latents(batch.data[MEAN], batch.data[LOGVAR], noise, "posterior")
        ids, u, eps = self._told(batch, dropped=True), self._time(noise, "t"), noise.normal("epsilon", *z.shape[1:])
        if self.classes is None:
            loss = self._errors(z, eps, u, ids).mean()
            return loss, {"loss": loss.detach(), **self._words_measured()}
        rows = noise.samples % len(self.classes[0])
        mean, logvar = (part.to(z.device)[rows] for part in self.classes)
        z = torch.cat([z, self.latents(mean, logvar, noise, "class.posterior")])
        u = torch.cat([u, self._time(noise, "class.t")])
        eps = torch.cat([eps, noise.normal("class.epsilon", *self.shape)])
        ids = tuple(torch.cat([own, other.expand(size, -1)]) for own, other in zip(ids, self._on(self.class_ids, z.device), strict=True))
        thing, kind = self._errors(z, eps, u, ids).chunk(2)
        assert self.family.adapted.dreambooth is not None
        loss = thing.mean() + self.family.adapted.dreambooth.prior_loss_weight * kind.mean()
        return loss, {"loss": loss.detach(), "loss/instance": thing.detach().mean(), "loss/class": kind.detach().mean()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The loss of the pictures, at times and noise that belong to the sample: the same at every evaluation."""
        samples = batch.noise.samples
        noise = Noise.of(0, 0, "heldout", samples)
        z, u = self.latents(batch.data[MEAN], batch.data[LOGVAR], noise, "posterior"), spread(samples).float()
        if self.process.prediction != "flow":
            u = (spread(samples) * self.process.timesteps).long()
        errors = self._errors(z, noise.normal("epsilon", *z.shape[1:]), u, self._told(batch, dropped=False))
        return {"loss": over(errors.mean(), batch.size)}

    def sample(self, batch: Batch) -> Samples:
        """By the prompts in `batch.data["caption"]`, or by what it is trained for; guided away from the empty prompt."""
        device, size = batch.noise.samples.device, batch.size
        caption = batch.data.get("caption")
        texts = texts_of(caption) if caption is not None else [self.words] * size
        ids = tuple(own.to(device) for own in self.texts.ids(texts, "prompt"))
        z = self._drawn(batch.noise, self._guided(ids))
        with torch.autocast(device.type, enabled=False):
            pictures = cast(Any, self.vae).decode(z / self.process.scale + self.process.shift).sample
        return Samples(images=pictures.float().clamp(-1.0, 1.0))

    def latents(self, mean: Tensor, logvar: Tensor, noise: Noise, name: str) -> Tensor:
        """A draw from the posterior, as the pipeline scales it."""
        drawn = mean + (0.5 * logvar).exp() * noise.normal(name, *mean.shape[1:])
        return (drawn - self.process.shift) * self.process.scale

    def _drawn(self, noise: Noise, look: Any) -> Tensor:
        steps = self.family.sampler.steps
        if self.process.prediction == "flow":
            x = noise.normal("start", *self.shape)
            stops = [shifted(1.0 - k / steps, self.process.time_shift) for k in range(steps + 1)]
            for here, there in pairwise(stops):
                x = x + (there - here) * look(x, told(self.process.timesteps * here, x))
            return x

        def found(x: Tensor, visit: Visit) -> tuple[Tensor, None]:
            predicted = look(x, told(visit.time, x))
            return image(self._prediction, predicted, x, visit.here**0.5, (1.0 - visit.here) ** 0.5), None

        return ddim(found, visits(self.process.abar.tolist(), steps), self.family.sampler.eta, noise, self.shape, unbounded)

    def _guided(self, ids: tuple[Tensor, ...]) -> Any:
        w = self.family.sampler.guidance
        if w == 1.0:
            return lambda x, t: self.network(x, t, *ids)
        nothing = self._on(self.nothing, ids[0].device)
        both = tuple(torch.cat([own, none.expand(len(own), -1)]) for own, none in zip(ids, nothing, strict=True))

        def look(x: Tensor, t: Tensor) -> Tensor:
            with_it, without = self.network(torch.cat([x, x]), torch.cat([t, t]), *both).chunk(2)
            return cast(Tensor, without + w * (with_it - without))

        return look

    @property
    def _prediction(self) -> Prediction:
        assert self.process.prediction != "flow"
        return self.process.prediction

    def _time(self, noise: Noise, name: str) -> Tensor:
        """Uniform in [0, 1) for a flow, else a timestep: float32 or int64 [B]."""
        if self.process.prediction == "flow":
            return noise.uniform(name, 1).squeeze(1)
        return noise.integers(name, self.process.timesteps, 1).squeeze(1)

    def _told(self, batch: Batch, *, dropped: bool) -> tuple[Tensor, ...]:
        """The ids of each picture's prompt; in training some are told nothing."""
        if self.prompts:
            rows = batch.noise.integers("template", len(self.prompts[0]), 1).squeeze(1)
            return chosen(self._on(self.prompts, rows.device), rows)
        ids = tuple(batch.data[f"{IDS}{number}"] for number in range(len(self.nothing)))
        given = self.family.conditioning
        if not dropped or given is None or given.dropout == 0:
            return ids
        without = batch.noise.uniform("condition", 1) < given.dropout
        return tuple(torch.where(without, none, own) for own, none in zip(ids, self._on(self.nothing, ids[0].device), strict=True))

    def _errors(self, z: Tensor, eps: Tensor, u: Tensor, ids: tuple[Tensor, ...]) -> Tensor:
        """Weighted squared errors, float32 in the shape of z."""
        if self.process.prediction == "flow":
            t_B = shifted(times(self.family.process.model_copy(update={"shift": 1.0}), u), self.process.time_shift)
            t = t_B.view(-1, 1, 1, 1)
            predicted = self.network((1.0 - t) * z + t * eps, self.process.timesteps * t_B, *ids)
            return cast(Tensor, (predicted - (eps - z)).square())
        a, s = (table[u].view(-1, 1, 1, 1) for table in self._tables(z.device))
        predicted = self.network(a * z + s * eps, u, *ids)
        errors: Tensor = (predicted - target(self._prediction, z, eps, a, s)).square()
        gamma = self.family.process.min_snr_gamma
        return errors if gamma is None else weight(self._prediction, gamma, a, s) * errors

    def _words_measured(self) -> dict[str, Tensor]:
        """Of a new word: the norm of its rows, and how far they are from where they began."""
        words = [encoder.get_input_embeddings() for encoder in cast(Any, self.network.encoders)]
        found = [word.measured for word in words if isinstance(word, NewWords)]
        if not found:
            return {}
        norm, distance = (torch.stack(values).mean() for values in zip(*found, strict=True))
        return {"word/norm": norm, "word/distance": distance}

    def _tables(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if device not in self._scales:
            with torch.inference_mode(False):
                abar = self.process.abar
                self._scales[device] = (abar.sqrt().float().to(device), (1.0 - abar).sqrt().float().to(device))
        return self._scales[device]

    def _on(self, ids: tuple[Tensor, ...], device: torch.device) -> tuple[Tensor, ...]:
        return tuple(own.to(device) for own in ids)
