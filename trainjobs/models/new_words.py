"""Textual inversion: new words for a text encoder, which are all that is trained.

The new rows are a parameter of their own beside the embedding, whose matrix nobody trains or copies (Gal et al., "An image is worth one
word", 2023, arXiv 2208.01618; diffusers' script trains the whole matrix and puts the others back after each step, which is lost where ZeRO
keeps other masters, and which weight decay moves).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class NewWords(nn.Module):
    """An embedding with `rows` behind it, from token `first` on, each a copy of the row of `initializer` at first.

    `measured` is of the last forward pass, without gradient: the mean norm of the rows, and their mean distance from where they began.
    """

    start: Tensor

    def __init__(self, embedding: nn.Embedding, first: int, initializer: int, count: int) -> None:
        super().__init__()
        self.embedding = embedding
        self._first = first
        start = embedding.weight[initializer].detach().float()
        self.rows = nn.Parameter(start.repeat(count, 1))
        self.register_buffer("start", start.clone(), persistent=False)
        self.measured: tuple[Tensor, Tensor] = (start.norm(), start.new_zeros(()))

    @property
    def weight(self) -> Tensor:
        """The embedding's: text encoders ask for its type."""
        return self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        known: Tensor = self.embedding(ids.clamp(max=self._first - 1))
        rows = self.rows.detach().float()
        self.measured = (rows.norm(dim=1).mean(), (rows - self.start).norm(dim=1).mean())
        new = F.embedding((ids - self._first).clamp(min=0), self.rows).to(known.dtype)
        return torch.where((ids >= self._first)[..., None], new, known)
