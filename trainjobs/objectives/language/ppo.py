"""Proximal policy optimisation of a language model: tokens that did better than was expected become likelier.

Schulman et al., 2017 (arXiv 1707.06347); for language Ziegler et al., 2019 (arXiv 1909.08593) and Stiennon et al., 2020 (arXiv
2009.01325). With the reward R of a completion, k_t the estimate of the divergence from the reference at token t and V_t the value head
before it, V = 0 behind the last token:

    r_t = -klCoefficient k_t + [t is the last] R                 k1: log p - log p_ref;   k3: exp(-k1) - 1 + k1   (Schulman, 2020)
    d_t = r_t + gamma V_{t+1} - V_t,   A_t = d_t + gamma lambda A_{t+1}          Schulman et al., 2015 (arXiv 1506.02438)
    G_t = A_t + V_t,   A <- (A - mean A) / sqrt(var A + 1e-8)                    over all tokens of all ranks, the variance Bessel's
    l_t = max(-A rho, -A clip(rho, 1 - clip, 1 + clip)) + valueCoefficient / 2 max((V - G)^2, (V_old + clip(V - V_old) - G)^2)

rho is the ratio to the probability with which the token was drawn. The last token is the end, or where the completion was cut off the last
one drawn; missingEosPenalty is taken from R then. Of a completion of which every reward function abstains nothing is learned, and its
advantages are in no mean. The loss is the mean over the tokens of the batch; rewards, values and ratios are of the
same temperature. All is computed once a step, within it: a checkpoint never falls between drawing and learning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainjobs.api.alignment import Ppo
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import Tokenizer
from trainjobs.objectives.language.answers import drawn
from trainjobs.objectives.language.completing import completed, entropy, over_tokens, rewarded, token_shares, valued, worth
from trainjobs.objectives.language.contest import Contest
from trainjobs.objectives.language.headed import values
from trainjobs.objectives.language.preference import referred_logs
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.language.tokens import log_probabilities
from trainjobs.objectives.phase import ROW, Batch, Phase, Rollout, Rows, Samples

SMALL = 1e-8  # added to the variance, as TRL does


@dataclass(frozen=True)
class PpoObjective:
    """`model` is a Valued network. `reference` is frozen; None: `model` without its adapters is, where klCoefficient asks for one."""

    model: nn.Module
    reference: nn.Module | None
    tokenizer: Tokenizer
    context_length: int
    settings: Ppo
    rewards: Rewards
    contest: Contest | None = None

    @property
    def phases(self) -> tuple[Phase, ...]:
        rollout = Rollout(self.make, self.finish)
        return (Phase("train", trains="model", loss=self.loss, draws=rollout, repeat=self.settings.epochs),)

    @property
    def highest_stage(self) -> int:
        return 3

    def make(self, batch: Batch) -> Rows:
        """Completions (see completing.py), with what each of their tokens had: "old" log-probability, "value" and "kl", float32 [B, L]."""
        own = self.settings
        rows = completed(self.model, self.tokenizer, own, batch)
        tokens, labels = rows["tokens"], rows["labels"]
        output = self.model(input_ids=tokens, valued=True)
        rows["old"] = log_probabilities(output.logits, labels, own.temperature)
        rows["value"] = values(output) * (labels != NOT_LEARNED)
        if own.kl_coefficient:
            theirs = referred_logs(self.model, self.reference, rows, own.temperature)
            rows["k1"], rows["k3"] = estimates(rows["old"], theirs)
        return rows

    def finish(self, rows: Rows, everywhere: Callable[[Tensor], Tensor]) -> Rows:
        """Adds what `valued` has, "share" [B], "advantage" and "return" [B, L], float32."""
        own, reward_B = self.settings, worth(self.rewards, self.tokenizer, rows)
        told = valued(rows, reward_B, everywhere(reward_B), self.rewards)
        learned_BL = told["labels"] != NOT_LEARNED
        kl_BL = rows.get(own.kl_estimator, torch.zeros_like(rows["value"]))
        reward_BL = token_rewards(reward_B.nan_to_num(), rows["ended"], kl_BL, learned_BL, own)
        advantage_BL, return_BL = generalised_advantages(reward_BL, rows["value"], learned_BL, own.gamma, own.lambda_)
        share_N = token_shares(everywhere(learned_BL.sum(dim=1)))
        told |= {"share": share_N[rows[ROW]], "return": return_BL}
        return {**told, "advantage": whitened(advantage_BL, learned_BL, everywhere)}

    def loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        own, rows = self.settings, batch.data
        learned_BL, share_B = rows["labels"] != NOT_LEARNED, rows["share"]
        output = self.model(input_ids=rows["tokens"], valued=True)
        logs_BL = log_probabilities(output.logits, rows["labels"], own.temperature)
        policy_BL, clipped_BL = policy_losses(logs_BL, rows["old"], rows["advantage"], own.clip)
        value_BL, beyond_BL = value_losses(values(output), rows["value"], rows["return"], own.value_clip)
        policy, value = (over_tokens(part, learned_BL, share_B) for part in (policy_BL, value_BL))
        loss = policy + own.value_coefficient * value
        metrics = {
            "loss": loss.detach(),
            "loss/policy": policy.detach(),
            "loss/value": value.detach(),
            **rewarded(rows),
            "completion/length": rows["count"].float().mean(),
            "completion/ended": rows["ended"].float().mean(),
            "clipped": over_tokens(clipped_BL.float(), learned_BL, share_B),
            "clipped/value": over_tokens(beyond_BL.float(), learned_BL, share_B),
            "entropy": over_tokens(entropy(output.logits, own.temperature), learned_BL, share_B),
        }
        kinds = [name for name in ("k1", "k3") if name in rows]
        return loss, metrics | {f"kl/{name}": over_tokens(rows[name], learned_BL, share_B) for name in kinds}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """Nothing: what a completion is worth shows in training."""
        return {}

    def sample(self, batch: Batch) -> Samples:
        return drawn(self.model, self.tokenizer, self.context_length, batch, self.settings.temperature)


def estimates(logs_BL: Tensor, reference_BL: Tensor) -> tuple[Tensor, Tensor]:
    """(k1, k3) of KL(p || p_ref) at tokens drawn from p: both right in the mean; the first may be negative, the second never is."""
    k1_BL = logs_BL - reference_BL
    return k1_BL, (-k1_BL).exp() - 1 + k1_BL


def token_rewards(reward_B: Tensor, ended_B: Tensor, kl_BL: Tensor, learned_BL: Tensor, settings: Ppo) -> Tensor:
    """r_t, float32 [B, L]: what a completion is worth stands at its last token, the end or, cut off, whichever it is."""
    worth_B = reward_B - settings.missing_eos_penalty * (~ended_B).float()
    last_BL = learned_BL & (learned_BL.flip(1).cumsum(dim=1).flip(1) == 1)
    return -settings.kl_coefficient * kl_BL * learned_BL + worth_B[:, None] * last_BL


def generalised_advantages(reward_BL: Tensor, value_BL: Tensor, learned_BL: Tensor, gamma: float, lambda_: float) -> tuple[Tensor, Tensor]:
    """(A, G), [B, L], 0 where nothing is learned. The tokens that are lie together in a row."""
    advantages, after_B, value_after_B = [], torch.zeros_like(reward_BL[:, 0]), torch.zeros_like(reward_BL[:, 0])
    for at in reversed(range(reward_BL.shape[1])):
        delta_B = reward_BL[:, at] + gamma * value_after_B - value_BL[:, at]
        after_B = (delta_B + gamma * lambda_ * after_B) * learned_BL[:, at]
        value_after_B = value_BL[:, at] * learned_BL[:, at]
        advantages.append(after_B)
    advantage_BL = torch.stack(advantages[::-1], dim=1)
    return advantage_BL, (advantage_BL + value_BL) * learned_BL


def whitened(advantage_BL: Tensor, learned_BL: Tensor, everywhere: Callable[[Tensor], Tensor]) -> Tensor:
    """Of mean 0 and variance 1 over the learned tokens of all ranks, float32 [B, L]: summed by rows in the order of the batch, in float64,
    so that any number of ranks finds the same."""
    exact_BL = advantage_BL.double()
    count = everywhere(learned_BL.sum(dim=1)).sum()
    mean = everywhere((exact_BL * learned_BL).sum(dim=1)).sum() / count
    centred_BL = (exact_BL - mean) * learned_BL
    variance = everywhere(centred_BL.square().sum(dim=1)).sum() / (count - 1).clamp(min=1)
    return (centred_BL / (variance + SMALL).sqrt()).to(advantage_BL.dtype)


def policy_losses(logs_BL: Tensor, old_BL: Tensor, advantage_BL: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Of each token its loss, and whether the ratio is held, [B, L]."""
    ratio_BL = (logs_BL - old_BL).exp()
    whole_BL, cut_BL = -advantage_BL * ratio_BL, -advantage_BL * ratio_BL.clamp(1 - clip, 1 + clip)
    return torch.maximum(whole_BL, cut_BL), cut_BL > whole_BL


def value_losses(value_BL: Tensor, old_BL: Tensor, return_BL: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Of each token its value's loss, and whether the value is held, [B, L]."""
    near_BL = old_BL + (value_BL - old_BL).clamp(-clip, clip)
    whole_BL, cut_BL = (value_BL - return_BL).square(), (near_BL - return_BL).square()
    return 0.5 * torch.maximum(whole_BL, cut_BL), cut_BL > whole_BL
