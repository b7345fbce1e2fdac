"""What a step learns from where it learns from rewards: completions of its prompts, and what they are worth.

Logits are divided by the temperature in the loss as in drawing, and nothing is cut off the distribution: else the old probabilities are
not those that drew the tokens, and ratios do not begin at 1. Means over tokens are over those of the whole batch, by shares: a row's sum
times its share, averaged over rows, is the mean over all tokens of all ranks, however rows are cut.
"""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.api.alignment import Rewarded
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.sequences import MESSAGES
from trainjobs.data.tokens import Tokenizer
from trainjobs.objectives.language.answers import said
from trainjobs.objectives.language.drawing import complete
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.phase import ROW, Batch, Rows


def completed(model: nn.Module, tokenizer: Tokenizer, settings: Rewarded, batch: Batch) -> dict[str, Tensor]:
    """What a step that learns from rewards begins with: "tokens" and "labels" int64 [B, P + T], "count" int64 [B], whether they "ended"
    bool [B], of the prompts what there was, and the "step" int64 [B]."""
    prompt_BP, length_B = batch.data["prompt"], batch.data["prompt_length"]
    uniform = batch.noise.uniform("tokens", settings.max_completion)
    alone = batch.whole is not None
    with batch.whole(model) if batch.whole else nullcontext(model) as whole:
        completion_BT, count_B = complete(whole, prompt_BP, length_B, uniform, tokenizer.ends, settings.temperature, alone=alone)
    last_B = completion_BT.gather(1, count_B[:, None] - 1)[:, 0]
    ended_B = torch.isin(last_B, torch.tensor(tokenizer.ends, device=last_B.device))
    tokens, labels = joined(prompt_BP, length_B, completion_BT, count_B, tokenizer.end)
    rows = {"tokens": tokens, "labels": labels, "count": count_B, "ended": ended_B, "prompt_length": length_B}
    return {**rows, "columns": batch.data["columns"], "step": torch.full_like(count_B, batch.at.step)}


def worth(rewards: Rewards, tokenizer: Tokenizer, rows: Rows) -> Tensor:
    """What this rank's completions are worth, float32 [B], NaN where all reward functions abstain. JobError GTJ0221."""
    prompts, completions = texts_of(tokenizer, rows)
    columns, messages = beside(rows["columns"])
    asked = [prompt if told is None else told for prompt, told in zip(prompts, messages, strict=True)]
    device, step = rows["tokens"].device, int(rows["step"][0])
    found = rewards(prompts, completions, columns, step, asked, device)
    return torch.tensor([math.nan if value is None else value for value in found], dtype=torch.float32, device=device)


def valued(rows: Rows, reward_B: Tensor, reward_N: Tensor, rewards: Rewards) -> dict[str, Tensor]:
    """Completions that have a reward, of this rank's and of all: "reward", NaN where there is none, "counted", by which a row counts in the
    mean of those that there are, and "deviation", float32 [B]; and "labels", by which nothing is learned of the others, int64 [B, L].

    JobError GTJ0221, on every rank, where there is no reward at all.
    """
    told_N, mine = reward_N.isfinite(), rows[ROW]
    if not told_N.any():
        raise rewards.all_abstained(int(rows["step"][0]), len(told_N))
    given = reward_N[told_N]
    deviation = given.std() if len(given) > 1 else torch.zeros_like(given[0])
    counted_N = told_N.float() * (len(told_N) / len(given))
    labels = rows["labels"].masked_fill(~reward_B.isfinite()[:, None], NOT_LEARNED)
    return {"reward": reward_B, "counted": counted_N[mine], "deviation": deviation.expand(len(mine)), "labels": labels}


def rewarded(rows: Rows) -> dict[str, Tensor]:
    """What is said of the rewards of rows as `valued` makes them."""
    return {
        "reward": (rows["reward"].nan_to_num() * rows["counted"]).mean(),
        "reward/abstained": rows["reward"].isnan().float().mean(),
        "reward/deviation": rows["deviation"].mean(),
    }


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


def token_shares(learned_N: Tensor) -> Tensor:
    """float32 [N]: by what a row's sum over its tokens is multiplied, so that the mean over all rows is the mean over all tokens."""
    count_N = learned_N.float()
    return torch.full_like(count_N, len(count_N)) / count_N.sum().clamp(min=1)


def over_tokens(value_BL: Tensor, learned_BL: Tensor, share_B: Tensor) -> Tensor:
    """This micro-batch's part of the mean over all tokens, a scalar."""
    return ((value_BL * learned_BL).sum(dim=1) * share_B).mean()


def entropy(logits_BLV: Tensor, temperature: float) -> Tensor:
    """Of each next token, in nats, float32 [B, L], without a gradient."""
    logs_BLV = (logits_BLV.detach().float() / temperature).log_softmax(dim=2)
    return -(logs_BLV.exp() * logs_BLV).sum(dim=2)


def beside(columns_BC: Tensor) -> tuple[dict[str, list[Any]], list[Any]]:
    """(each other column of the data; the messages of each prompt, None of a text) of rows of JSON in bytes, filled up with 0."""
    rows = [json.loads(bytes(row[row > 0].tolist()) or b"{}") for row in columns_BC.cpu()]
    messages = [row.pop(MESSAGES, None) for row in rows]
    return listed(rows), messages


def listed(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    """Columns of rows."""
    return {name: [row.get(name) for row in rows] for name in (rows[0] if rows else {})}


def texts_of(tokenizer: Tokenizer, rows: Rows) -> tuple[list[str], list[str]]:
    """(prompts, completions) of rows as `completed` makes them."""
    prompts, completions = [], []
    for row, length, count in zip(*(rows[name].tolist() for name in ("tokens", "prompt_length", "count")), strict=True):
        prompts.append(said(tokenizer, row[:length]))
        completions.append(tokenizer.decode([token for token in row[length : length + count] if token not in tokenizer.ends]))
    return prompts, completions
