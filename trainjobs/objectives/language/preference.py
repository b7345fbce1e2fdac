"""Learning from pairs of answers of which one is better: directly (DPO), or as a model of rewards.

With d = beta ((log p(w) - log p_ref(w)) - (log p(l) - log p_ref(l))) of the chosen answer w and the rejected one l, each the sum over the
answer's tokens, and e the share of preferences that are the wrong way round:

    sigmoid   -(1 - e) log s(d) - e log s(-d)                     Rafailov et al., 2023 (arXiv 2305.18290); e: Mitchell, 2023
    robust    (-(1 - e) log s(d) + e log s(-d)) / (1 - 2 e)       Chowdhury et al., 2024 (arXiv 2403.00409)
    hinge     max(0, 1 - d)                                       Zhao et al., 2023 (arXiv 2305.10425)
    ipo       (d' / beta - 1 / (2 beta))^2                        Azar et al., 2023 (arXiv 2310.12036); d' of means per token

A model of rewards r, read at an answer's last token (by its length, not by what it is):

    -log s(r(w) - r(l) - margin) + c (r(w) + r(l))^2              Bradley and Terry, 1952; c: Eisenstein et al., 2023 (arXiv 2312.09244)

Each pair counts the same. The reference is the network as it began: a frozen copy, or the network itself without its adapters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.alignment import Dpo, RewardModel
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import Tokenizer
from trainjobs.objectives.language.answers import drawn
from trainjobs.objectives.language.contest import Contest
from trainjobs.objectives.language.tokens import log_probabilities
from trainjobs.objectives.phase import Batch, Phase, Rows, Samples


class _OfPairs(ABC):
    """What is learned of pairs of answers, of which the first is the better."""

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="model", loss=self.loss),)

    @property
    def highest_stage(self) -> int:
        return 3

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss_B, metrics = self._measured(batch)
        return loss_B.mean(), {"loss": loss_B.detach().mean(), **{name: value.mean() for name, value in metrics.items()}}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        loss_B, metrics = self._measured(batch)
        return summed({"loss": loss_B, **metrics})

    @abstractmethod
    def _measured(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of each pair, float32 [B]."""


@dataclass(frozen=True)
class DpoObjective(_OfPairs):
    """`reference` is frozen; None: `model` without its adapters is."""

    model: nn.Module
    reference: nn.Module | None
    tokenizer: Tokenizer
    context_length: int
    settings: Dpo
    contest: Contest | None = None

    def sample(self, batch: Batch) -> Samples:
        return drawn(self.model, self.tokenizer, self.context_length, batch)

    def _measured(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tokens, labels = (batch.data[name].flatten(0, 1) for name in ("tokens", "labels"))
        ours = log_probabilities(self.model(input_ids=tokens).logits, labels)
        with torch.no_grad():
            theirs = log_probabilities(referred(self.model, self.reference, tokens), labels)
        ratios_B2 = (ours - theirs).sum(dim=1).view(-1, 2)
        counts_B2 = (labels != NOT_LEARNED).sum(dim=1).view(-1, 2)
        loss_B = preferred(ratios_B2, counts_B2, self.settings)
        return loss_B, told(self.settings.beta * ratios_B2.detach())


@dataclass(frozen=True)
class RewardObjective(_OfPairs):
    """`model(input_ids=..., last=...)` is a Scored network."""

    model: nn.Module
    settings: RewardModel

    def sample(self, batch: Batch) -> Samples:
        """It makes nothing."""
        return Samples(texts=())

    def _measured(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        tokens, lengths = batch.data["tokens"].flatten(0, 1), batch.data["lengths"].flatten()
        rewards_B2 = self.model(input_ids=tokens, last=lengths).float().view(-1, 2)
        chosen_B, rejected_B = rewards_B2.unbind(dim=1)
        loss_B = -F.logsigmoid(chosen_B - rejected_B - self.settings.margin) + self.settings.centering * (chosen_B + rejected_B) ** 2
        return loss_B, told(rewards_B2.detach())


class Scored(nn.Module):
    """The body of a causal network and a score; weights have the names that transformers' ...ForSequenceClassification gives them.

    The score is read at the last token, that is by a row's length, `last` int64 [B]: what rows are filled up with may be any token, also
    the one that ends them.
    """

    begins_anew = ("score.weight",)  # a causal network's weights are a beginning as well
    leaves = ("lm_head.weight",)

    def __init__(self, causal: nn.Module, score: nn.Module | None = None) -> None:
        """`score` is one that was trained; None: it is drawn."""
        super().__init__()
        given: Any = causal
        if hasattr(given, "get_base_model"):  # peft's, which has put an adapter into the layers
            given = given.get_base_model()
        self.body = given.base_model_prefix
        self.add_module(self.body, given.base_model)
        self.config = given.config
        if score is not None:
            self.score = score
            return
        self.score = nn.Linear(given.config.hidden_size, 1, bias=False)
        nn.init.normal_(self.score.weight, std=given.config.initializer_range)

    def forward(self, input_ids: Tensor, last: Tensor) -> Tensor:
        """float [B]"""
        hidden_BLH = self.get_submodule(self.body)(input_ids=input_ids).last_hidden_state
        scores: Tensor = self.score(hidden_BLH[torch.arange(len(last), device=last.device), last - 1])
        return scores[:, 0]


def preferred(ratios_B2: Tensor, counts_B2: Tensor, settings: Dpo) -> Tensor:
    """The loss of each pair, from log p - log p_ref of both answers."""
    beta, e = settings.beta, settings.label_smoothing
    delta_B = beta * (ratios_B2[:, 0] - ratios_B2[:, 1])
    if settings.loss == "hinge":
        return torch.relu(1 - delta_B)
    if settings.loss == "ipo":
        means_B2 = ratios_B2 / counts_B2.clamp(min=1)
        return (means_B2[:, 0] - means_B2[:, 1] - 1 / (2 * beta)) ** 2
    if settings.loss == "robust":
        return (-(1 - e) * F.logsigmoid(delta_B) + e * F.logsigmoid(-delta_B)) / (1 - 2 * e)
    return -(1 - e) * F.logsigmoid(delta_B) - e * F.logsigmoid(-delta_B)


def referred(model: nn.Module, reference: nn.Module | None, tokens_BL: Tensor) -> Tensor:
    """The reference's logits, float [B, L, V]."""
    logits: Tensor
    if reference is not None:
        logits = reference(input_ids=tokens_BL).logits
        return logits
    adapted: Any = model
    with adapted.disable_adapter():
        logits = model(input_ids=tokens_BL).logits
    return logits


def told(rewards_B2: Tensor) -> dict[str, Tensor]:
    """What is said of a batch of pairs, float32 [B] each."""
    chosen_B, rejected_B = rewards_B2.unbind(dim=1)
    return {
        "rewards/chosen": chosen_B,
        "rewards/rejected": rejected_B,
        "rewards/margin": chosen_B - rejected_B,
        "rewards/accuracy": (chosen_B > rejected_B).float(),
    }


def summed(metrics: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    count = torch.full((), len(next(iter(metrics.values()))), dtype=torch.float64)
    return {name: (value.double().sum(), count) for name, value in metrics.items()}


def referred_logs(model: nn.Module, reference: nn.Module | None, rows: Rows, temperature: float) -> Tensor:
    """The reference's log-probabilities of the completions' tokens, float32 [B, P + T]."""
    return log_probabilities(referred(model, reference, rows["tokens"]), rows["labels"], temperature)
