"""Precision and recall of generated pictures, by the balls that their features fill.

    f(x, X) = 1 where |x - x_i| <= |x_i - NN_k(x_i, X)| for one x_i of X at least, else 0
    precision = mean of f(generated, real)      recall = mean of f(real, generated)

with NN_k(x_i, X) the k-th nearest other one of X, k = 3 (Kynkäänniemi et al., "Improved precision and recall metric for assessing
generative models", 2019, arXiv 1904.06991, equations 1 to 3): how many of the generated pictures look like some that there are, and how
many of those that there are look like a generated one.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEIGHBOUR = 3
_ROWS = 512  # whose distances are held at a time


def distances(x_MF: Tensor, y_NF: Tensor) -> Tensor:
    """float64 [M, N]: by differences, so that equal rows are at 0."""
    return torch.cdist(x_MF.double(), y_NF.double(), compute_mode="donot_use_mm_for_euclid_dist")


def radii(x_NF: Tensor, neighbour: int = NEIGHBOUR) -> Tensor:
    """float64 [N]: how far the k-th nearest other row is, or the farthest where there are fewer."""
    nth = min(neighbour + 1, len(x_NF))  # each is its own nearest
    return torch.cat([distances(rows, x_NF).kthvalue(nth, dim=1).values for rows in torch.split(x_NF, _ROWS)])


def inside(x_MF: Tensor, balls_NF: Tensor, radii_N: Tensor) -> float:
    """The share of x within one of the balls at least."""
    found = [(distances(rows, balls_NF) <= radii_N).any(dim=1) for rows in torch.split(x_MF, _ROWS)]
    return float(torch.cat(found).double().mean())


def precision(real_NF: Tensor, made_MF: Tensor, neighbour: int = NEIGHBOUR) -> float:
    return inside(made_MF, real_NF, radii(real_NF, neighbour))


def recall(real_NF: Tensor, made_MF: Tensor, neighbour: int = NEIGHBOUR) -> float:
    return inside(real_NF, made_MF, radii(made_MF, neighbour))
