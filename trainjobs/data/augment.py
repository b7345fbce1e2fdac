"""Random changes of training images, on their device, by the sample's own noise: a picture is changed alike however a batch is cut.

horizontalFlip  in half of the cases
rotation        by an angle that is uniform in +-strength.rotation, bilinear
randomCrop      moved by whole pixels, uniform in +-strength.crop of a side in either direction
colorJitter     brightness x <- b x, contrast x <- mean + c (x - mean), saturation x <- grey + s (x - grey), hue turned, in this order;
                each result clipped, mean and grey by the luma of ITU-R BT.601 (torchvision's ColorJitter, which shuffles the order)

What comes in at an edge is the picture, mirrored there, so that a generative model learns no black corners.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from trainjobs.api.data import Images
from trainjobs.noise import Noise

_LUMA = (0.2989, 0.587, 0.114)


def augmented(image: Tensor, images: Images, noise: Noise) -> Tensor:
    """float [B, C, H, W] in [-1, 1], changed as the manifest says."""
    strength = images.strength
    if "horizontalFlip" in images.augment:
        image = torch.where(noise.uniform("horizontalFlip")[:, None, None, None] < 0.5, image.flip(-1), image)
    if "rotation" in images.augment:
        image = rotated(image, strength.rotation * signed(noise.uniform("rotation")))
    if "randomCrop" in images.augment:
        most = round(strength.crop * image.shape[-1])
        image = moved_by(image, noise.integers("randomCrop", 2 * most + 1, 2) - most)
    if "colorJitter" in images.augment:
        b, c, s, h = signed(noise.uniform("colorJitter", 4)).unbind(1)
        factors = (1.0 + strength.brightness * b, 1.0 + strength.contrast * c, 1.0 + strength.saturation * s)
        image = jittered(image, *factors, strength.hue * h)
    return image


def signed(uniform: Tensor) -> Tensor:
    """Uniform in [0, 1) as uniform in [-1, 1)."""
    return 2.0 * uniform - 1.0


def rotated(image: Tensor, degrees_B: Tensor) -> Tensor:
    """Each picture, turned about its centre against the clock by so many degrees."""
    angle = degrees_B * (math.pi / 180.0)
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    across, along = image.shape[-2] / image.shape[-1], image.shape[-1] / image.shape[-2]  # a grid's coordinates end at 1 on each side
    maps = torch.stack([torch.stack([cos, -sin * across, none], dim=1), torch.stack([sin * along, cos, none], dim=1)], dim=1)
    grid = F.affine_grid(maps, list(image.shape), align_corners=False)
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)


def moved_by(image: Tensor, pixels_B2: Tensor) -> Tensor:
    """Each picture, moved up and to the left by so many pixels."""
    C, H, W = image.shape[1:]
    rows = mirrored(torch.arange(H, device=image.device) + pixels_B2[:, :1], H)[:, None, :, None].expand(-1, C, -1, W)
    columns = mirrored(torch.arange(W, device=image.device) + pixels_B2[:, 1:], W)[:, None, None, :].expand(-1, C, H, -1)
    return image.gather(2, rows).gather(3, columns)


def mirrored(places: Tensor, length: int) -> Tensor:
    """Places outside of 0..length-1 as those that a mirror at the edge shows; the outermost one stands on both of its sides."""
    within = places % (2 * length)
    return torch.where(within < length, within, 2 * length - 1 - within)


def jittered(image: Tensor, brightness_B: Tensor, contrast_B: Tensor, saturation_B: Tensor, hue_B: Tensor) -> Tensor:
    """Grey pictures have brightness and contrast alone. `hue_B` is in turns of the colour wheel."""
    b, c, s, h = (each[:, None, None, None] for each in (brightness_B, contrast_B, saturation_B, hue_B))
    x = ((image + 1.0) / 2.0 * b).clamp(0.0, 1.0)
    mean = grey(x).mean(dim=(1, 2, 3), keepdim=True)
    x = (mean + c * (x - mean)).clamp(0.0, 1.0)
    if x.shape[1] == 3:
        luma = grey(x)
        x = (luma + s * (x - luma)).clamp(0.0, 1.0)
        x = turned(x, h)
    return x * 2.0 - 1.0


def grey(x: Tensor) -> Tensor:
    """float [B, 1, H, W]."""
    if x.shape[1] != 3:
        return x[:, :1]
    r, g, b = x.chunk(3, dim=1)
    return _LUMA[0] * r + _LUMA[1] * g + _LUMA[2] * b


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """The hue of float [B, 3, H, W] in [0, 1], turned; value and chroma stay. A colour is value - chroma times a hump over the wheel."""
    value, low = x.amax(dim=1, keepdim=True), x.amin(dim=1, keepdim=True)
    chroma = value - low
    r, g, b = x.chunk(3, dim=1)
    some = torch.where(chroma > 0.0, chroma, torch.ones_like(chroma))
    sixth = torch.where(value == r, (g - b) / some % 6.0, torch.where(value == g, (b - r) / some + 2.0, (r - g) / some + 4.0))
    hue = sixth + 6.0 * turns
    k = (torch.tensor([5.0, 3.0, 1.0], device=x.device).view(1, 3, 1, 1) + hue) % 6.0
    return value - chroma * torch.minimum(k, 4.0 - k).clamp(0.0, 1.0)
