"""A discriminator's opinion of a sample as one of its class, beside that of it alone.

    D(x, y) = psi(phi(x)) + v_y . phi(x)

Miyato and Koyama, "cGANs with projection discriminator", 2018 (arXiv 1802.05637, equation 3); phi(x) are the features before the last
layer, added up over the places, and the table of v is normalised spectrally where the other layers are, as in the authors' code.
"""

from __future__ import annotations

from torch import Tensor, nn

from trainjobs.models.normalization import spectral_norm


class Projection(nn.Module):
    """float [B, features] and int64 [B] -> float [B]."""

    def __init__(self, classes: int, features: int, *, spectral: bool) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, features)
        nn.init.xavier_uniform_(self.table.weight)
        if spectral:
            spectral_norm(self.table)

    def forward(self, features_BF: Tensor, label_B: Tensor) -> Tensor:
        v_BF: Tensor = self.table(label_B)
        return (v_BF.to(features_BF.dtype) * features_BF).sum(dim=1)
