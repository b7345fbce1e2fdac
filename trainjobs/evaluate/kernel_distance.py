"""The kernel distance of features: KID, the squared maximum mean discrepancy with a polynomial kernel, without bias.

    k(x, y) = (x·y / F + 1)³
    MMD² = 1/(m(m-1)) sum_{i≠j} k(x_i, x_j) + 1/(m(m-1)) sum_{i≠j} k(y_i, y_j) - 2/m² sum_{i,j} k(x_i, y_j)

of m real and m generated pictures with F features, as a mean over subsets of both (Bińkowski et al., "Demystifying MMD GANs", 2018,
arXiv 1801.01401, section 4 and equation 4; Gretton et al., "A kernel two-sample test", 2012, lemma 6): 100 subsets of 1,000, or all of
them once where there are no more. It may be negative, as an estimate of zero must be. The subsets are the same at every evaluation and on
every machine: they go by their number.
"""

from __future__ import annotations

import torch
from torch import Tensor

from trainjobs.data.sampler import permutation

SUBSETS, LARGEST = 100, 1000
DEGREE = 3


def kernel(x_MF: Tensor, y_MF: Tensor) -> Tensor:
    """[M, M]."""
    return (x_MF @ y_MF.T / x_MF.shape[1] + 1.0) ** DEGREE


def unbiased(x_MF: Tensor, y_MF: Tensor) -> float:
    """MMD² of as many of each, at least 2."""
    m = len(x_MF)
    own = sum((k.sum() - k.diagonal().sum()) / (m * (m - 1)) for k in (kernel(x_MF, x_MF), kernel(y_MF, y_MF)))
    return float(own - 2.0 * kernel(x_MF, y_MF).mean())


def kernel_distance(real_NF: Tensor, made_NF: Tensor, subsets: int = SUBSETS, largest: int = LARGEST) -> float:
    """The mean over the subsets."""
    real, made = real_NF.double(), made_NF.double()
    size = min(len(real), len(made), largest)
    whole = len(real) == len(made) == size
    found = []
    for number in range(1 if whole else subsets):
        x, y = (kind[permutation(len(kind), "kid", name, number)[:size]] for kind, name in ((real, "real"), (made, "made")))
        found.append(unbiased(x, y))
    return float(torch.tensor(found, dtype=torch.float64).mean())
