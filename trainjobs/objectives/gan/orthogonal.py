"""Orthogonal regularisation of a generator's layers.

    sum over layers of ||W W^T * (1 - I)||_F^2,   W [filters, elements of a filter]

The filters of a layer are drawn towards right angles, and their lengths left alone: Brock, Donahue and Simonyan, "Large scale GAN training
for high fidelity natural image synthesis", 2019 (arXiv 1809.11096, equation 3, where filters are columns). Where there are more filters
than elements they cannot all be at right angles, and it is W^T W instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.objectives.gan.gradient_penalty import wide


def orthogonal(network: nn.Module) -> Tensor:
    """Unweighted, float32. Of what is normalised spectrally it takes the weight that is trained."""
    found = [off_diagonal(wide(weight)) for weight in weights(network)]
    return torch.stack(found).sum()


def off_diagonal(filters: Tensor) -> Tensor:
    """Of a matrix [N, M], the squares of the inner products of different rows, or columns if they are fewer, added up."""
    with torch.autocast(filters.device.type, enabled=False):
        rows = filters if filters.shape[0] <= filters.shape[1] else filters.T
        others = 1.0 - torch.eye(len(rows), dtype=rows.dtype, device=rows.device)
        return (rows @ rows.T * others).square().sum()


def weights(network: nn.Module) -> list[Tensor]:
    """The weights of its layers, each a matrix of a row for each filter."""
    found = []
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            normalized: Any = getattr(layer, "parametrizations", None)
            weight: Tensor = layer.weight if normalized is None else normalized.weight.original
            found.append((weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else weight).flatten(1))
    return found
