"""Distillation of a language model: a student learns what a frozen teacher of the same vocabulary says of each token.

    L = (1 / N) sum_i  alpha T^2 D(teacher, student)_i + (1 - alpha) CE_i + hiddenStates |W h_i - h'_i|^2 / width

over the N tokens that are learned, D of divergence.py at the temperature T (Hinton, Vinyals and Dean, 2015, arXiv 1503.02531), CE the
cross-entropy of the data; h and h' are the last hidden states of student and teacher and W a trained projection, no part of what is learned
from it (Romero et al., "FitNets", 2015, arXiv 1412.6550).

A share of the sequences, `onPolicy`, has its completion drawn by the student, within the step, and of these L is T^2 D with the third term
alone (Agarwal et al., 2024, arXiv 2306.13649): the student is taught where it goes, and its own tokens are no data. Which ones is a
matter of the sample's noise.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.alignment import Distill
from trainjobs.api.language import LanguageLoss
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import Tokenizer
from trainjobs.data.top_logits import LOGS, REST, TOKENS
from trainjobs.objectives.language.answers import drawn
from trainjobs.objectives.language.completing import joined
from trainjobs.objectives.language.divergence import divergence, divergence_of_likeliest
from trainjobs.objectives.language.drawing import complete
from trainjobs.objectives.language.headed import Projected
from trainjobs.objectives.language.tokens import inputs
from trainjobs.objectives.phase import Batch, Phase, Rollout, Rows, Samples


@dataclass(frozen=True)
class DistillObjective:
    """`model` and `teacher` are causal networks, `model` a Projected one where hidden states are compared; None: there is no teacher yet,
    and nothing can be learned, but drawn; or with `topK` batches say what it says (data/top_logits.py)."""

    model: nn.Module
    teacher: nn.Module | None
    tokenizer: Tokenizer
    context_length: int
    of_data: LanguageLoss
    settings: Distill
    stream: bool = False

    @property
    def phases(self) -> tuple[Phase, ...]:
        if self.settings.on_policy:
            return (Phase("train", trains="model", loss=self.loss, draws=Rollout(self.make), weigh=_learned),)
        return (Phase("train", trains="model", loss=self.loss, weigh=None if self.stream else "units"),)

    @property
    def highest_stage(self) -> int:
        return 3

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        sums, count = self._sums(batch.data, self.of_data.label_smoothing)
        means = {name: value / count.clamp(min=1) for name, value in sums.items()}
        return means["total"], {"loss": means.pop("total").detach(), **{name: value.detach() for name, value in means.items()}}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Per learned token; the loss is the cross-entropy without smoothing, of which perplexity is the exponential."""
        sums, count = self._sums(batch.data, 0.0)
        told = {"loss": sums["cross_entropy"], "divergence": sums["divergence"]}
        return {name: (value.double(), count.double()) for name, value in told.items()}

    def sample(self, batch: Batch) -> Samples:
        """Completions of the prompts that the data has, else texts of their own."""
        return drawn(self.model, self.tokenizer, self.context_length, batch)

    def make(self, batch: Batch) -> Rows:
        """The batch, int64 [B, context], some of its rows with a completion of the student; bool [B] says which."""
        own, device = self.settings, batch.noise.samples.device
        tokens_BL, labels_BL = (batch.data[name] for name in ("tokens", "labels"))
        room = self.context_length - tokens_BL.shape[1]
        tokens_BL = F.pad(tokens_BL, (0, room), value=self.tokenizer.end)
        labels_BL = F.pad(labels_BL, (0, room), value=NOT_LEARNED)
        learned_BL = labels_BL != NOT_LEARNED
        mine_B = (batch.noise.uniform("onPolicy") < own.on_policy) & learned_BL.any(dim=1)
        length_B = torch.where(learned_BL.any(dim=1), learned_BL.long().argmax(dim=1) + 1, 1)  # up to what predicts the first one
        behind_BL = torch.arange(self.context_length, device=device)[None, :] >= length_B[:, None]
        prompt_BL = tokens_BL.masked_fill(behind_BL, self.tokenizer.end)[:, : int(length_B.max())]
        most = min(own.max_completion, self.context_length - prompt_BL.shape[1] + 1)
        uniform_BT = batch.noise.uniform("tokens", own.max_completion)[:, :most]
        alone = batch.whole is not None
        with batch.whole(self.model) if batch.whole else nullcontext(self.model) as whole:
            completion_BT, count_B = complete(whole, prompt_BL, length_B, uniform_BT, self.tokenizer.ends, alone=alone)
        made = joined(prompt_BL, length_B, completion_BT, count_B, self.tokenizer.end)
        fills = (self.tokenizer.end, NOT_LEARNED)
        own_BL, asked_BL = (
            F.pad(part, (0, max(0, self.context_length - part.shape[1])), value=fill)[:, : self.context_length]
            for part, fill in zip(made, fills, strict=True)
        )
        chosen_B1 = mine_B[:, None]
        return {"tokens": own_BL.where(chosen_B1, tokens_BL), "labels": asked_BL.where(chosen_B1, labels_BL), "drawn": mine_B}

    def _sums(self, data: Mapping[str, Tensor], smoothing: float) -> tuple[dict[str, Tensor], Tensor]:
        """(sums over the learned tokens of this micro-batch, by name, float32; how many there are)."""
        own = self.settings
        told = (data[TOKENS], data[LOGS], data[REST]) if own.top_k is not None else None
        assert told or self.teacher is not None, "the loop gives it one (checkpointer/teacher.py), or the data says what it says"
        if self.stream:
            data = {"tokens": data["tokens"][:, :-1], "labels": data["tokens"][:, 1:]}
        arguments, learned_BL = inputs(data), data["labels"] != NOT_LEARNED
        hidden = {"output_hidden_states": True} if own.hidden_states else {}
        ours = self.model(**arguments, **({"projected": True} if own.hidden_states else {}))
        size = self.tokenizer.vocabulary
        student_NV = ours.logits[learned_BL][:, :size].float()
        if told is not None:
            apart_N = divergence_of_likeliest(student_NV, _at(told, learned_BL), own.beta, own.temperature)
        else:
            with torch.no_grad():
                assert self.teacher is not None
                theirs = self.teacher(**arguments, **hidden)
            apart_N = divergence(student_NV, theirs.logits[learned_BL][:, :size].float(), own.beta, own.temperature)
        labels_N = data["labels"][learned_BL]
        crossed_N = F.cross_entropy(student_NV, labels_N, reduction="none", label_smoothing=smoothing)
        drawn_B = data.get("drawn", torch.zeros(len(learned_BL), dtype=torch.bool, device=learned_BL.device))
        alpha_N = torch.where(drawn_B[:, None].expand_as(learned_BL)[learned_BL], 1.0, own.alpha)
        total = (alpha_N * own.temperature**2 * apart_N + (1 - alpha_N) * crossed_N).sum()
        sums = {"divergence": apart_N.sum(), "cross_entropy": crossed_N.sum()}
        if own.hidden_states:
            wanted_NH = theirs.hidden_states[-1][learned_BL].float()
            sums["hidden"] = (ours["projected"][learned_BL].float() - wanted_NH).square().mean(dim=1).sum()
            total = total + own.hidden_states * sums["hidden"]
        return {**sums, "total": total}, learned_BL.sum()


def _at(told: tuple[Tensor, Tensor, Tensor], learned_BL: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    tokens, logs, rest = told
    return tokens[learned_BL], logs[learned_BL], rest[learned_BL]


def _learned(batch: Batch) -> Tensor:
    return (batch.data["labels"] != NOT_LEARNED).sum()


def projected(objective: DistillObjective, width: int) -> nn.Module:
    """The student, with a projection to hidden states of that width where they are compared."""
    return Projected(objective.model, width) if objective.settings.hidden_states else objective.model
