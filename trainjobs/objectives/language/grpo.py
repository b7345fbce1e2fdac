"""Group relative policy optimisation: completions that are better than the others of their prompt become likelier.

Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300). With the reward R of a completion among the G of its prompt, the ratio
r_t = exp(log p(w_t) - log p_old(w_t)) of each token and A = (R - mean_group R) / (std + 1e-4):

    l_t = -min(r_t A, clip(r_t, 1 - epsilon, 1 + epsilonHigh) A) + beta (exp(q) - q - 1),   q = log p_ref(w_t) - log p(w_t)

    grpo      mean over a completion's tokens, then over completions
    dapo      sum over all tokens of the batch / their number            Yu et al., 2025 (arXiv 2503.14476)
    dr_grpo   sum over all tokens / (completions * maxCompletion)        Liu et al., 2025 (arXiv 2503.20783); scaleRewards: none as theirs

The standard deviation is Bessel's, of the group, of the batch, or 1. Logits are divided by the temperature in the loss as in drawing, and
nothing is cut off the distribution: else p_old is not what drew the tokens. A group may lie on several ranks; rewards are exchanged once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.api.alignment import Grpo
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import Tokenizer
from trainjobs.objectives.language.answers import drawn, said
from trainjobs.objectives.language.drawing import complete
from trainjobs.objectives.language.preference import referred
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.language.tokens import log_probabilities
from trainjobs.objectives.phase import ROW, Batch, Phase, Rollout, Rows, Samples

SMALL = 1e-4  # added to the standard deviation, as TRL does


@dataclass
class GrpoObjective:
    """`reference` is frozen; None: `model` without its adapters is, where beta asks for one."""

    model: nn.Module
    reference: nn.Module | None
    tokenizer: Tokenizer
    context_length: int
    settings: Grpo
    rewards: Rewards
    _step: int = field(default=0, init=False)

    @property
    def phases(self) -> tuple[Phase, ...]:
        rollout = Rollout(self.make, self.finish)
        return (Phase("train", trains="model", loss=self.loss, draws=rollout, repeat=self.settings.epochs),)

    @property
    def highest_stage(self) -> int:
        return 3

    def make(self, batch: Batch) -> Rows:
        """Completions, as rows for the loss: "tokens" and "labels" int64 [B, P + T], "count" [B], whether they "ended" [B]."""
        own, prompt_BP, length_B = self.settings, batch.data["prompt"], batch.data["prompt_length"]
        self._step = batch.at.step
        uniform = batch.noise.uniform("tokens", own.max_completion)
        completion_BT, count_B = complete(self.model, prompt_BP, length_B, uniform, self.tokenizer.end, own.temperature)
        ended_B = completion_BT.gather(1, count_B[:, None] - 1)[:, 0] == self.tokenizer.end
        tokens, labels = joined(prompt_BP, length_B, completion_BT, count_B, self.tokenizer.end)
        if own.mask_truncated:
            labels = labels.masked_fill(~ended_B[:, None], NOT_LEARNED)
        rows = {"tokens": tokens, "labels": labels, "count": count_B, "ended": ended_B, "prompt_length": length_B}
        rows["columns"] = batch.data["columns"]
        if own.epochs > 1:
            rows["old"] = log_probabilities(self.model(input_ids=tokens).logits, labels, own.temperature)
        if own.beta:
            rows["reference"] = log_probabilities(referred(self.model, self.reference, tokens), labels, own.temperature)
        return rows

    def finish(self, rows: Rows, everywhere: Callable[[Tensor], Tensor]) -> Rows:
        """Adds "reward", "advantage" and "share", by which a row's sum of losses is multiplied, float32 [B]."""
        prompts, completions = self._texts(rows)
        columns = listed([json.loads(bytes(row[row > 0].tolist()) or b"{}") for row in rows["columns"].cpu()])
        device = rows["tokens"].device
        reward_B = torch.tensor(self.rewards(prompts, completions, columns, self._step), dtype=torch.float32, device=device)
        all_N, learned_N = everywhere(reward_B), everywhere((rows["labels"] != NOT_LEARNED).sum(dim=1))
        advantage_N, flat = advantages(all_N, self.settings)
        mine = rows[ROW]
        share_N = shares(learned_N, self.settings)
        told = {"reward": reward_B, "advantage": advantage_N[mine], "share": share_N[mine]}
        return {**told, "flat": flat.expand(len(mine)), "deviation": all_N.std().expand(len(mine))}

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        own, rows = self.settings, batch.data
        learned_BL = rows["labels"] != NOT_LEARNED
        logs_BL = log_probabilities(self.model(input_ids=rows["tokens"]).logits, rows["labels"], own.temperature)
        old_BL = rows.get("old", logs_BL.detach())
        loss_BL, clipped_BL, kl_BL = token_losses(logs_BL, old_BL, rows.get("reference"), rows["advantage"], own)
        loss = ((loss_BL * learned_BL).sum(dim=1) * rows["share"]).mean()
        count = learned_BL.sum().clamp(min=1)
        metrics = {
            "loss": loss.detach(),
            "reward": rows["reward"].mean(),
            "reward/deviation": rows["deviation"].mean(),
            "completion/length": rows["count"].float().mean(),
            "completion/ended": rows["ended"].float().mean(),
            "groups/flat": rows["flat"].mean(),
            "clipped": (clipped_BL & learned_BL).sum() / count,
        }
        if kl_BL is not None:
            metrics["kl/reference"] = (kl_BL.detach() * learned_BL).sum() / count
        return loss, metrics

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Nothing: what a completion is worth shows in training."""
        return {}

    def sample(self, batch: Batch) -> Samples:
        return drawn(self.model, self.tokenizer, self.context_length, batch, self.settings.temperature)

    def _texts(self, rows: Rows) -> tuple[list[str], list[str]]:
        prompts, completions = [], []
        for row, length, count in zip(*(rows[name].tolist() for name in ("tokens", "prompt_length", "count")), strict=True):
            prompts.append(said(self.tokenizer, row[:length]))
            completions.append(self.tokenizer.decode([token for token in row[length : length + count] if token != self.tokenizer.end]))
        return prompts, completions


def joined(prompt_BP: Tensor, length_B: Tensor, completion_BT: Tensor, count_B: Tensor, fill: int) -> tuple[Tensor, Tensor]:
    """(tokens, labels), int64 [B, P + T]: each completion right behind its prompt, and what predicts its tokens."""
    width, more = prompt_BP.shape[1], completion_BT.shape[1]
    places_L = torch.arange(width + more, device=prompt_BP.device)[None, :]
    behind_BL = places_L - length_B[:, None]  # the number of a completion's token
    padded_BL = torch.nn.functional.pad(prompt_BP, (0, more), value=fill)
    tokens_BL = torch.where(behind_BL >= 0, completion_BT.gather(1, behind_BL.clamp(0, more - 1)), padded_BL)
    tokens_BL = tokens_BL.masked_fill(behind_BL >= count_B[:, None], fill)
    after_BL = behind_BL + 1
    labels_BL = completion_BT.gather(1, after_BL.clamp(0, more - 1))
    return tokens_BL, labels_BL.masked_fill((after_BL < 0) | (after_BL >= count_B[:, None]), NOT_LEARNED)


def advantages(reward_N: Tensor, settings: Grpo) -> tuple[Tensor, Tensor]:
    """(float32 [N], the share of groups in which all rewards are the same): rewards of the whole batch, group by group."""
    groups = reward_N.view(-1, settings.generations)
    centred = groups - groups.mean(dim=1, keepdim=True)
    flat = (groups.std(dim=1) == 0).float().mean()
    if settings.scale_rewards == "group":
        centred = centred / (groups.std(dim=1, keepdim=True) + SMALL)
    elif settings.scale_rewards == "batch":
        centred = centred / (reward_N.std() + SMALL)
    return centred.flatten(), flat


def shares(learned_N: Tensor, settings: Grpo) -> Tensor:
    """float32 [N]: by what a completion's sum of losses is multiplied, so that the mean over all completions is the loss."""
    count_N = learned_N.float()
    if settings.loss == "grpo":
        return 1 / count_N.clamp(min=1)
    if settings.loss == "dr_grpo":
        return torch.full_like(count_N, 1 / settings.max_completion)
    return torch.full_like(count_N, len(count_N)) / count_N.sum().clamp(min=1)


def token_losses(
    logs_BL: Tensor, old_BL: Tensor, reference_BL: Tensor | None, advantage_B: Tensor, settings: Grpo
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of each token its loss, whether it is clipped, and its estimate of the KL divergence (k3, never negative), [B, L]."""
    ratio_BL = (logs_BL - old_BL).exp()
    high = settings.epsilon_high if settings.epsilon_high is not None else settings.epsilon
    advantage_B1 = advantage_B[:, None]
    whole_BL, cut_BL = ratio_BL * advantage_B1, ratio_BL.clamp(1 - settings.epsilon, 1 + high) * advantage_B1
    loss_BL, clipped_BL = -torch.minimum(whole_BL, cut_BL), cut_BL < whole_BL
    if reference_BL is None or not settings.beta:
        return loss_BL, clipped_BL, None
    gap_BL = reference_BL - logs_BL
    kl_BL = gap_BL.exp() - gap_BL - 1
    return loss_BL + settings.beta * kl_BL, clipped_BL, kl_BL


def listed(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns of rows."""
    return {name: [row.get(name) for row in rows] for name in (rows[0] if rows else {})}
