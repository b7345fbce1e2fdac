"""The Fréchet distance of features: FID.

    d² = |m - m'|² + tr(S + S' - 2 (S S')^(1/2))

between two Gaussians with the means m and the covariances S of the features of real and of generated pictures (Heusel et al., "GANs
trained by a two time-scale update rule converge to a local Nash equilibrium", 2017, arXiv 1706.08500, equation 6; Dowson and Landau, "The
Fréchet distance between multivariate normal distributions", 1982). Covariances are over N - 1, as in the authors' code.

tr (S S')^(1/2) is the sum of the roots of the eigenvalues of R S' R with R = S^(1/2), which is symmetric: so nothing becomes complex, and a
covariance of fewer samples than features needs no addition to its diagonal. All of it in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Moments:
    """Of N samples of F features: float64 [F] and [F, F]."""

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, features_NF: Tensor) -> Moments:
        """N at least 2."""
        x = features_NF.double()
        mean = x.mean(dim=0)
        centred = x - mean
        return cls(mean, centred.T @ centred / (len(x) - 1))


def frechet(real: Moments, made: Moments) -> float:
    """At least 0; NaN where a feature is no number."""
    if not all(bool(part.isfinite().all()) for each in (real, made) for part in (each.mean, each.covariance)):
        return float("nan")
    values, vectors = torch.linalg.eigh(real.covariance)
    root = (vectors * values.clamp(min=0.0).sqrt()) @ vectors.T
    inner = root @ made.covariance @ root
    roots = torch.linalg.eigvalsh((inner + inner.T) / 2.0).clamp(min=0.0).sqrt()
    apart = (real.mean - made.mean).square().sum()
    distance = apart + real.covariance.trace() + made.covariance.trace() - 2.0 * roots.sum()
    return max(0.0, float(distance))
