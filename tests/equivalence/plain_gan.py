"""A plain torch loop for GANs with every loss and regulariser: one process, the whole batch at once, torch.optim, second derivatives by
torch.autograd.grad of the network itself, augmentation sample by sample. Nothing of the loop, of DeepSpeed or of the objectives.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import plain
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.gan import Gan
from trainjobs.api.job import Job, Spec
from trainjobs.data import open_source
from trainjobs.noise import Noise, mix
from trainjobs.objectives.build import build
from trainjobs.objectives.gan import ada


def train(manifest: dict[str, Any], cache: Path) -> tuple[dict[str, nn.Module], dict[str, list[float]]]:
    """The networks at the end, and what was measured at each step."""
    spec = Job.model_validate(manifest).spec
    gan, batch = spec.gan, spec.training.batch.global_
    assert gan
    source = open_source(spec, cache)
    torch.manual_seed(mix(spec.training.seed, "weights"))
    networks = build(spec, source.info).modules
    g, d = networks["generator"], networks["discriminator"]
    lazy, critics = gan.regularization.r1, gan.loss.critic_steps
    interval = lazy.every if lazy else 1
    path, mean_length = gan.regularization.path_length, 0.0
    optimizers = {
        "generator": optimizer(spec, "generator", g, path.every / (path.every + 1) if path and path.every > 1 else 1.0),
        "discriminator": optimizer(spec, "discriminator", d, interval * critics / (interval * critics + 1) if interval > 1 else 1.0),
    }
    measured: dict[str, list[float]] = {}
    seen, strength, signs, before = 0, 0.0, list[float](), None
    for step in range(spec.training.steps):
        norms, r1s = [], []
        if grown := size_at(gan, step * batch * critics, spec.data.images.size):
            if grown != (before or grown) and grown[0] != before[0]:  # with each size the optimizers begin anew
                for each in optimizers.values():
                    each.state.clear()
            before = grown
        for repetition in range(critics):
            data, noise = plain.draw(spec, source, step, f"D.{repetition}", seen, batch, "cpu")
            real, own, to_make = next(iter(data.values())), told(gan, data), told(gan, data)
            if grown:
                real, own, to_make = faded(real, *grown), [grown[1]], [grown[0].bit_length() - 3, grown[1]]
            fake = generated(gan, g, noise, *to_make).detach()
            x, y = augmented(gan, real, noise, "real", strength), augmented(gan, fake, noise, "fake", strength)
            loss = discriminator_loss(gan, d, x, y, noise, *own)
            if gan.augment and gan.augment.type == "ada":
                with torch.no_grad():
                    signs += torch.sign(d(x, *own)).tolist()
                measured.setdefault("augment/p", []).append(strength)
            if lazy and lazy.every == 1:
                slope = (slopes(d, x, *own) ** 2).sum() / batch
                loss = loss + lazy.gamma / 2 * slope
                r1s.append(slope.item())
            norms.append(update(spec, d, optimizers["discriminator"], loss))
            clip(gan, d)
            seen += batch
        if lazy and lazy.every > 1 and step % lazy.every == 0:
            samples = torch.arange(seen - batch, seen)  # the last critic's, read with the randomness that it read them with
            real = source.batch(samples, spec.training.seed, Noise.of(spec.training.seed, step, f"D.{critics - 1}", samples))
            noise = Noise.of(spec.training.seed, step, "D_r1.0", samples)
            shown = next(iter(real.values()))
            x = augmented(gan, faded(shown, *grown) if grown else shown, noise, "real", strength)
            slope = (slopes(d, x, *([grown[1]] if grown else told(gan, real))) ** 2).sum() / batch
            r1s.append(slope.item())
            for weight in d.parameters():  # as StyleGAN2's code has it: what the penalty does not depend on has the gradient 0
                slope = slope + 0 * weight.sum()
            update(spec, d, optimizers["discriminator"], lazy.every * critics * lazy.gamma / 2 * slope)
        behind = torch.arange(seen, seen + batch) - (batch if gan.conditional else 0)  # of classes: those of the step's real samples
        noise = Noise.of(spec.training.seed, step, "G.0", behind)
        score = d(augmented(gan, generated(gan, g, noise, *to_make), noise, "fake", strength), *own)
        loss = generator_loss(gan, score) + gan.regularization.orthogonal * angles(g)
        norm_g = update(spec, g, optimizers["generator"], loss)
        if signs and (step + 1) % gan.augment.every_steps == 0:
            # So many images as were looked at, of those in which it goes from 0 to 1.
            strength = min(max(strength + float(np.sign(np.mean(signs) - gan.augment.target)) * len(signs) / gan.augment.images, 0.0), 1.0)
            signs = []
        if path and step % path.every == 0:
            lengths = style_lengths(gan, g, Noise.of(spec.training.seed, step, "G_path.0", behind), *own)
            update(spec, g, optimizers["generator"], path.every * path.weight * ((lengths - mean_length) ** 2).mean())
            mean_length = (1 - path.decay) * mean_length + path.decay * lengths.mean().item()
            measured.setdefault("path_length", []).append(lengths.mean().item())
        found = {"gradient_norm/discriminator": sum(norms) / critics, "gradient_norm/generator": norm_g, "loss/G": loss.item()}
        for name, value in (found | ({"r1": sum(r1s) / len(r1s)} if r1s else {})).items():
            measured.setdefault(name, []).append(value)
    return networks, measured


def optimizer(spec: Spec, name: str, network: nn.Module, c: float) -> torch.optim.Optimizer:
    """`c` of the appendix on lazy regularisation."""
    chosen = spec.training.optimizer(name)
    if chosen.name == "sgd":
        return torch.optim.SGD(network.parameters(), lr=chosen.learning_rate * c, momentum=chosen.momentum)
    if chosen.name == "rmsprop":
        return torch.optim.RMSprop(network.parameters(), lr=chosen.learning_rate)
    return torch.optim.Adam(network.parameters(), lr=chosen.learning_rate * c, betas=(chosen.betas[0] ** c, chosen.betas[1] ** c))


def update(spec: Spec, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> float:
    """The norm of the gradient before it is clipped."""
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(network.parameters(), spec.training.gradient_clipping or float("inf"))
    optimizer.step()
    return norm.item()


def clip(gan: Gan, d: nn.Module) -> None:
    if gan.loss.type == "wgan":
        for weight in d.parameters():
            weight.data = torch.maximum(torch.minimum(weight.data, torch.tensor(gan.loss.weight_clip)), torch.tensor(-gan.loss.weight_clip))


def size_at(gan: Gan, images: int, size: int) -> tuple[int, float] | None:
    """(pixels, alpha), image by image: so many of the first size, then of each a fade and as many."""
    if gan.progressive is None:
        return None
    pixels, left = gan.progressive.start, images - gan.progressive.stable_images
    while left >= 0 and pixels < size:
        pixels, left = 2 * pixels, left - gan.progressive.fade_images
        if left < 0:
            return pixels, 1 + left / gan.progressive.fade_images
        left -= gan.progressive.stable_images
    return pixels, 1.0


def faded(real: Tensor, pixels: int, alpha: float) -> Tensor:
    """Means of blocks, and as much of twice as large ones as is not faded in."""

    def blocks(across: int) -> Tensor:
        side = real.shape[-1] // across
        means = real.unflatten(-1, (across, side)).unflatten(-3, (across, side)).mean(dim=(-1, -3))
        return means.repeat_interleave(pixels // across, -1).repeat_interleave(pixels // across, -2)

    return alpha * blocks(pixels) + ((1 - alpha) * blocks(pixels // 2) if alpha < 1 else 0)


def told(gan: Gan, data: dict[str, Tensor]) -> list[Tensor]:
    return [data["label"]] if gan.conditional else []


def discriminator_loss(gan: Gan, d: nn.Module, x: Tensor, y: Tensor, noise: Noise, *own: Tensor) -> Tensor:
    on_real, on_fake, label = d(x, *own), d(y, *own), gan.loss.real_label
    match gan.loss.type:
        case "bce" | "minimax":
            loss = F.binary_cross_entropy_with_logits(on_real, torch.full_like(on_real, label))
            loss = loss + F.binary_cross_entropy_with_logits(on_fake, torch.zeros_like(on_fake))
        case "lsgan":
            loss = (F.mse_loss(on_real, torch.full_like(on_real, label)) + F.mse_loss(on_fake, torch.zeros_like(on_fake))) / 2
        case "hinge":
            loss = torch.clamp(1 - on_real, min=0).mean() + torch.clamp(1 + on_fake, min=0).mean()
        case "wgan":
            loss = on_fake.mean() - on_real.mean()
        case "wgan-gp":
            u = noise.uniform("interpolation", *[1] * (x.dim() - 1))
            penalty = ((slopes(d, u * x + (1 - u) * y, *own).norm(dim=1) - 1) ** 2).mean()
            loss = on_fake.mean() - on_real.mean() + gan.loss.gradient_penalty * penalty
    return loss + gan.loss.drift * (on_real**2).mean()


def generator_loss(gan: Gan, score: Tensor) -> Tensor:
    if gan.loss.type == "bce":
        return F.binary_cross_entropy_with_logits(score, torch.ones_like(score))
    if gan.loss.type == "minimax":
        return -F.binary_cross_entropy_with_logits(score, torch.zeros_like(score))
    return F.mse_loss(score, torch.ones_like(score)) / 2 if gan.loss.type == "lsgan" else -score.mean()


def generated(gan: Gan, g: nn.Module, noise: Noise, *own: Tensor) -> Tensor:
    z = noise.normal("z", gan.generator.latent_dim)
    if gan.generator.architecture != "stylegan2":
        return g(z, *own)
    return g.draw(styles(gan, g, noise, z, *own), noise)


def styles(gan: Gan, g: nn.Module, noise: Noise, z: Tensor, *own: Tensor) -> Tensor:
    """Sample by sample: its own style, or from a layer on that of another latent."""
    other, u = noise.normal("z.mixed", gan.generator.latent_dim), noise.uniform("mixing")
    rows = []
    for row in range(len(z)):
        first = int(noise.integers("mixing.from", g.layers - 1)[row]) + 1 if u[row] < gan.generator.style_mixing else g.layers
        beside = [g.told(label[row : row + 1]) for label in own]
        this, its = g.mapping(z[row : row + 1], *beside), g.mapping(other[row : row + 1], *beside)
        rows.append(torch.cat([this] * first + [its] * (g.layers - first)))
    return torch.stack(rows)


def style_lengths(gan: Gan, g: nn.Module, noise: Noise, *own: Tensor) -> Tensor:
    """Karras et al., equation 4, one layer's slope after another; of every second sample, say."""
    shrink = gan.regularization.path_length.batch_shrink
    few = Noise(noise.seed, noise.samples[::shrink])
    z = few.normal("z", gan.generator.latent_dim)
    w = list(styles(gan, g, few, z, *(label[::shrink] for label in own)).unbind(1))
    image = g.draw(torch.stack(w, dim=1), few)
    y = few.normal("path", *image.shape[1:]) / image.shape[-1]
    squares = [(slope**2).sum(1) for slope in torch.autograd.grad((image * y).sum(), w, create_graph=True)]
    zero = sum(0 * weight.sum() for weight in g.parameters())  # what it does not depend on has the gradient 0
    return torch.sqrt(torch.stack(squares).mean(0)) + zero


def slopes(d: nn.Module, x: Tensor, *own: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(d(x, *own).sum(), x, create_graph=True)[0].reshape(len(x), -1)


def angles(g: nn.Module) -> Tensor:
    """Brock et al., equation 3: W^T W with the filters as columns, of which everything but the diagonal counts."""
    total = torch.zeros(())
    for layer in g.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            weight = layer.parametrizations.weight.original if hasattr(layer, "parametrizations") else layer.weight
            columns = (weight.permute(0, 2, 3, 1) if isinstance(layer, nn.ConvTranspose2d) else weight.movedim(0, -1)).flatten(0, -2)
            columns = columns if columns.shape[1] <= columns.shape[0] else columns.T
            total = total + ((columns.T @ columns * (1 - torch.eye(columns.shape[1]))) ** 2).sum()
    return total


def augmented(gan: Gan, x: Tensor, noise: Noise, which: str, p: float) -> Tensor:
    """Zhao et al., section 3.2, one sample after another. Of ADA, whose operations have a test of their own, p is by hand."""
    if gan.augment is None:
        return x
    if gan.augment.type == "ada":
        rows = [Noise(noise.seed, noise.samples[row : row + 1]) for row in range(len(x))]
        return torch.cat(
            [ada.augmented(x[row : row + 1], gan.augment.pipeline, p, own, f"augment.{which}") for row, own in enumerate(rows)]
        )
    made = []
    for row, picture in enumerate(x):
        own = Noise(noise.seed, noise.samples[row : row + 1])
        for part in gan.augment.policy:
            picture = {"color": color, "translation": translation, "cutout": cutout}[part](picture, own, f"augment.{which}.{part}")
        made.append(picture)
    return torch.stack(made)


def color(picture: Tensor, noise: Noise, name: str) -> Tensor:
    b, s, c = noise.uniform(name, 3)[0]
    picture = picture + b - 0.5
    picture = torch.lerp(picture.mean(0, keepdim=True).expand_as(picture), picture, 2 * s)
    return torch.lerp(picture.mean().expand_as(picture), picture, c + 0.5)


def translation(picture: Tensor, noise: Noise, name: str) -> Tensor:
    size = picture.shape[-1]
    most = round(size / 8)
    down, across = (int(noise.integers(f"{name}.{way}", 2 * most + 1)) for way in ("down", "across"))
    return F.pad(picture, (most, most, most, most))[:, down : down + size, across : across + size]


def cutout(picture: Tensor, noise: Noise, name: str) -> Tensor:
    size = picture.shape[-1]
    top, left = (int(noise.integers(f"{name}.{way}", size + 1 - size // 2 % 2)) - size // 4 for way in ("down", "across"))
    mask = torch.ones_like(picture)
    mask[:, max(top, 0) : max(top + size // 2, 0), max(left, 0) : max(left + size // 2, 0)] = 0
    return picture * mask
