"""The denoiser of a pipeline and its text encoders as one network, since one loss may train them together.

Stable Diffusion      the last hidden states of CLIP
Stable Diffusion XL   the last but one of two CLIPs side by side; beside them the second's pooled output, and sizes and crop of the image
Stable Diffusion 3    those of two CLIPs side by side, filled up to the transformer's width, and behind them the last of T5's 256 tokens, or
                      zeros in their place where the pipeline is saved without it; beside them the pooled outputs of both CLIPs
These are what the pipelines of diffusers tell their networks. Where an XL pipeline says that an empty prompt is nothing at all
(force_zeros_for_empty_prompt), it is zeros, in training as in sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.data.pipelines import ENCODERS
from trainjobs.models.pipelines import Parts

T5 = 256  # tokens, padding among them, to which no mask is told: max_sequence_length of diffusers' pipeline


class PipelineNetwork(nn.Module):
    """`network(x, t, *ids)`: x float [B, C, h, w], t [B] as the scheduler counts it, ids int64 [B, T] of each text encoder; what the
    pipeline predicts, in the shape of x, whose sides are `factor` times smaller than the picture's. `nothing` are the ids of the empty
    prompt, int64 [T] each, where it is zeros."""

    def __init__(self, parts: Parts, factor: int, nothing: Sequence[Tensor] = ()) -> None:
        super().__init__()
        self._kind, self._name, self._factor = parts.kind, parts.name, factor
        self._count = len(parts.encoders)
        self.add_module(parts.name, parts.denoiser)
        for name, encoder in zip(ENCODERS, parts.encoders, strict=False):
            self.add_module(name, encoder)
        for number, ids in enumerate(nothing):
            self.register_buffer(f"nothing_{number}", ids, persistent=False)
        self._zeros = bool(nothing)

    @property
    def denoiser(self) -> nn.Module:
        return getattr(self, self._name)  # type: ignore[no-any-return]

    @property
    def encoders(self) -> list[nn.Module]:
        return [getattr(self, name) for name in ENCODERS[: self._count]]

    def train(self, mode: bool = True) -> PipelineNetwork:
        """What is not trained stays in eval mode; so does T5, whose dropout belongs to no sample, while it learns a word."""
        super().train(mode)
        for number, part in enumerate((self.denoiser, *self.encoders)):
            part.train(mode and number < 3 and any(parameter.requires_grad for parameter in part.parameters()))
        return self

    def activation_checkpointing_enable(self, activation_checkpointing_kwargs: dict[str, Any]) -> None:
        """The denoiser's blocks are computed again (models/recomputing.py): diffusers' own switch, without reentrance."""
        switch: Any = self.denoiser.enable_gradient_checkpointing
        switch()

    def forward(self, x: Tensor, t: Tensor, *ids: Tensor) -> Tensor:
        dtype = next(self.denoiser.parameters()).dtype
        told, pooled = self.told(ids)
        told, pooled = told.to(dtype), pooled.to(dtype)
        if self._kind == "StableDiffusion3Pipeline":
            predicted = self.denoiser(hidden_states=x.to(dtype), timestep=t, encoder_hidden_states=told, pooled_projections=pooled)
        elif self._kind == "StableDiffusionXLPipeline":
            height, width = (self._factor * side for side in x.shape[-2:])
            sizes = torch.tensor([height, width, 0, 0, height, width], device=x.device, dtype=dtype)
            beside = {"text_embeds": pooled, "time_ids": sizes.expand(len(x), -1)}
            predicted = self.denoiser(x.to(dtype), t, encoder_hidden_states=told, added_cond_kwargs=beside)
        else:
            predicted = self.denoiser(x.to(dtype), t, encoder_hidden_states=told)
        found: Tensor = predicted.sample
        return found.float()

    def told(self, ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """What the denoiser is told of texts: float [B, T, D], and [B, P], which is empty where it is told nothing beside."""
        if self._kind == "StableDiffusionPipeline":
            hidden: Tensor = self.encoders[0](ids[0]).last_hidden_state
            return hidden, hidden.new_zeros(len(hidden), 0)
        states: list[Tensor] = []
        pools: list[Any] = []
        for encoder, own in zip(self.encoders[:2], ids[:2], strict=True):
            found = encoder(own, output_hidden_states=True)
            states.append(found.hidden_states[-2])
            pools.append(getattr(found, "text_embeds", None))
        hidden = torch.cat(states, dim=-1)
        if self._kind == "StableDiffusionXLPipeline":
            pooled: Tensor = pools[-1]
        else:
            pooled = torch.cat(pools, dim=-1)
            width: int = self.denoiser.config.joint_attention_dim  # type: ignore[union-attr, assignment]
            hidden = F.pad(hidden, (0, width - hidden.shape[-1]))
            third = self.encoders[2](ids[2])[0] if len(ids) > 2 else hidden.new_zeros(len(hidden), T5, width)
            hidden = torch.cat([hidden, third], dim=1)
        if self._zeros:
            empty = torch.stack([(own == getattr(self, f"nothing_{n}")).all(dim=1) for n, own in enumerate(ids)]).all(dim=0)
            hidden = hidden.masked_fill(empty[:, None, None], 0.0)
            pooled = pooled.masked_fill(empty[:, None], 0.0)
        return hidden, pooled
