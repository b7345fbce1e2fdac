"""Group relative policy optimisation: completions that are better than the others of their prompt become likelier.

Shao et al., "DeepSeekMath", 2024 (arXiv 2402.03300). With the reward R of a completion among the G of its prompt, the ratio
r_t = exp(log p(w_t) - log p_old(w_t)) of each token and A = (R - mean_group R) / (std + 1e-4):

    l_t = -min(r_t A, clip(r_t, 1 - epsilon, 1 + epsilonHigh) A) + beta (exp(q) - q - 1),   q = log p_ref(w_t) - log p(w_t)

    grpo      mean over a completion's tokens, then over completions
    dapo      sum over all tokens of the batch / their number            Yu et al., 2025 (arXiv 2503.14476)
    dr_grpo   sum over all tokens / (completions * maxCompletion)        Liu et al., 2025 (arXiv 2503.20783); scaleRewards: none as theirs

The standard deviation is Bessel's, of the group, of the batch, or 1. A group may lie on several ranks; rewards are exchanged once. A
completion of which every reward function abstains is in no mean and no deviation, and nothing is learned of it; of a group with one reward
nothing is either. Dynamic
sampling (Yu et al.) draws further prompts until a step's batch is full of groups whose rewards differ, so many times at most; of what is
still missing nothing is learned. Temperature and shares are those of completing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainjobs.api.alignment import Grpo
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import Tokenizer
from trainjobs.objectives.language.answers import drawn
from trainjobs.objectives.language.completing import completed, entropy, over_tokens, rewarded, token_shares, valued, worth
from trainjobs.objectives.language.contest import Contest
from trainjobs.objectives.language.preference import referred_logs
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.language.tokens import log_probabilities
from trainjobs.objectives.phase import ROW, Batch, Phase, Rollout, Rows, Samples

SMALL = 1e-4  # added to the standard deviation, as TRL does


@dataclass(frozen=True)
class GrpoObjective:
    """`reference` is frozen; None: `model` without its adapters is, where beta asks for one."""

    model: nn.Module
    reference: nn.Module | None
    tokenizer: Tokenizer
    context_length: int
    settings: Grpo
    rewards: Rewards
    contest: Contest | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        tries = self.settings.dynamic_sampling
        rollout = Rollout(self.make, self.finish, self.judge, tries) if tries else Rollout(self.make, self.finish)
        return (Phase("train", trains="model", loss=self.loss, draws=rollout, repeat=self.settings.epochs),)

    @property
    def highest_stage(self) -> int:
        return 3

    def make(self, batch: Batch) -> Rows:
        """Completions (see completing.py), and the log-probabilities of their tokens that the loss asks for, float32 [B, P + T]."""
        own = self.settings
        rows = completed(self.model, self.tokenizer, own, batch)
        tokens, labels = rows["tokens"], rows["labels"]
        if own.mask_truncated:
            labels = rows["labels"] = labels.masked_fill(~rows["ended"][:, None], NOT_LEARNED)
        if own.epochs > 1:
            rows["old"] = log_probabilities(self.model(input_ids=tokens).logits, labels, own.temperature)
        if own.beta:
            rows["reference"] = referred_logs(self.model, self.reference, rows, own.temperature)
        return rows

    def judge(self, rows: Rows, everywhere: Callable[[Tensor], Tensor]) -> tuple[Rows, Tensor]:
        """Of dynamic sampling: which rows are of a group whose rewards differ."""
        reward_B = worth(self.rewards, self.tokenizer, rows)
        flat_G = flat(everywhere(reward_B).view(-1, self.settings.generations))
        return {"reward": reward_B}, ~flat_G.repeat_interleave(self.settings.generations)

    def finish(self, rows: Rows, everywhere: Callable[[Tensor], Tensor]) -> Rows:
        """Adds what `valued` has, "advantage", "share", by which a row's sum of losses is multiplied, and "token_share", by which it is for
        the mean over all tokens, float32 [B]."""
        reward_B = rows["reward"] if "reward" in rows else worth(self.rewards, self.tokenizer, rows)
        all_N = everywhere(reward_B)
        told = valued(rows, reward_B, all_N, self.rewards)
        labels = told["labels"]
        if "chosen" in rows:  # flat groups are no part of a mean over tokens either
            labels = labels.masked_fill(~rows["chosen"][:, None], NOT_LEARNED)
        learned_N = everywhere((labels != NOT_LEARNED).sum(dim=1))
        advantage_N, flat_groups = advantages(all_N, self.settings)
        mine, share_N = rows[ROW], shares(learned_N, self.settings, all_N.isfinite())
        told |= {"advantage": advantage_N[mine], "share": share_N[mine], "token_share": token_shares(learned_N)[mine], "labels": labels}
        return {**told, "flat": flat_groups.expand(len(mine))}

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        own, rows = self.settings, batch.data
        learned_BL = rows["labels"] != NOT_LEARNED
        logits_BLV = self.model(input_ids=rows["tokens"]).logits
        logs_BL = log_probabilities(logits_BLV, rows["labels"], own.temperature)
        old_BL = rows.get("old", logs_BL.detach())
        loss_BL, clipped_BL, kl_BL = token_losses(logs_BL, old_BL, rows.get("reference"), rows["advantage"], own)
        loss = over_tokens(loss_BL, learned_BL, rows["share"])
        share_B = rows["token_share"]
        metrics = {
            "loss": loss.detach(),
            **rewarded(rows),
            "completion/length": rows["count"].float().mean(),
            "completion/ended": rows["ended"].float().mean(),
            "groups/flat": rows["flat"].mean(),
            "clipped": over_tokens(clipped_BL.float(), learned_BL, share_B),
            "entropy": over_tokens(entropy(logits_BLV, own.temperature), learned_BL, share_B),
        }
        if "tries" in rows:
            metrics["groups/tries"] = rows["tries"].mean()
        if kl_BL is not None:
            metrics["kl/reference"] = over_tokens(kl_BL.detach(), learned_BL, share_B)
        return loss, metrics

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Nothing: what a completion is worth shows in training."""
        return {}

    def sample(self, batch: Batch) -> Samples:
        return drawn(self.model, self.tokenizer, self.context_length, batch, self.settings.temperature)


def advantages(reward_N: Tensor, settings: Grpo) -> tuple[Tensor, Tensor]:
    """(float32 [N], 0 where there is no reward; the share of groups that are flat): rewards of the whole batch, group by group, NaN where
    there is none."""
    groups = reward_N.view(-1, settings.generations)
    flat_G1 = flat(groups)[:, None]
    centred = (groups - groups.nanmean(dim=1, keepdim=True)).masked_fill(groups.isnan() | flat_G1, 0)
    if settings.scale_rewards == "group":
        centred = centred / (_deviations(groups) + SMALL)
    elif settings.scale_rewards == "batch":
        centred = centred / (_deviations(reward_N[None]) + SMALL)
    return centred.flatten(), flat_G1.float().mean()


def flat(groups_GN: Tensor) -> Tensor:
    """bool [G]: whether no reward of a group differs from another, so that nothing is learned of it."""
    none_GN, infinite = groups_GN.isnan(), float("inf")
    return groups_GN.masked_fill(none_GN, -infinite).amax(dim=1) <= groups_GN.masked_fill(none_GN, infinite).amin(dim=1)


def _deviations(groups_GN: Tensor) -> Tensor:
    """[G, 1]: Bessel's standard deviation of the rewards that there are, 0 of one."""
    count_G1 = (~groups_GN.isnan()).sum(dim=1, keepdim=True)
    squares_GN = (groups_GN - groups_GN.nanmean(dim=1, keepdim=True)).square()
    return (squares_GN.nansum(dim=1, keepdim=True) / (count_G1 - 1).clamp(min=1)).sqrt()


def shares(learned_N: Tensor, settings: Grpo, told_N: Tensor) -> Tensor:
    """float32 [N]: by what a completion's sum of losses is multiplied, so that the mean over all completions is the loss, which is one over
    those that have a reward, `told_N`."""
    count_N, told = learned_N.float(), told_N.float().mean()
    if settings.loss == "grpo":
        return 1 / count_N.clamp(min=1) / told
    if settings.loss == "dr_grpo":
        return torch.full_like(count_N, 1 / settings.max_completion) / told
    return token_shares(learned_N)


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
