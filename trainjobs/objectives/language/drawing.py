"""Completions of prompts of unequal length, drawn token by token.

Prompts are moved to the end of their rows, and what is in front of them is hidden. So one pass reads all prompts, and each further pass
draws a token of every row: as many passes on every rank, whatever the prompts, which is what ZeRO stage 3 needs where weights are not all
at hand (engine/gathered.py). A token is found by
inverting the cumulative distribution at the row's own uniform number, so a completion depends on the row, not on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.models.generation import draw
from trainjobs.objectives.language.attention import behind_filling


def complete(
    model: nn.Module,
    prompt_BP: Tensor,
    length_B: Tensor,
    uniform_BT: Tensor,
    ends: Sequence[int],
    temperature: float = 1.0,
    *,
    alone: bool = False,
) -> tuple[Tensor, Tensor]:
    """(tokens int64 [B, T], how many of them count [B]): what follows each prompt, up to the first of `ends` and with it.

    `prompt_BP` is filled up behind its first `length_B` tokens; `uniform_BT` are in [0, 1). Behind an end stands the first of `ends`.
    `alone`: other ranks need not make as many passes, so it is over when every row has ended.
    """
    ends_E = torch.tensor(ends, device=prompt_BP.device)
    width, count = prompt_BP.shape[1], uniform_BT.shape[1]
    filling_B = width - length_B
    places_P = torch.arange(width, device=prompt_BP.device)
    moved_BP = (places_P[None, :] - filling_B[:, None]).clamp(min=0)
    next_BX = torch.where(places_P[None, :] >= filling_B[:, None], prompt_BP.gather(1, moved_BP), ends_E[0])
    positions_BX = moved_BP
    past: Any = None
    drawn: list[Tensor] = []
    over_B = torch.zeros_like(length_B, dtype=torch.bool)
    for number in range(count):
        mask = behind_filling(filling_B, next_BX.shape[1], width + number)
        output = model(input_ids=next_BX, position_ids=positions_BX, attention_mask=mask, past_key_values=past, use_cache=True)
        past = output.past_key_values
        next_BX = draw(output.logits[:, -1].float() / temperature, uniform_BT[:, number : number + 1])
        positions_BX = (length_B + number)[:, None]
        drawn.append(next_BX)
        over_B = over_B | torch.isin(next_BX[:, 0], ends_E)
        if alone and bool(over_B.all()):
            break
    tokens_BT = torch.nn.functional.pad(torch.cat(drawn, dim=1), (0, count - len(drawn)), value=ends[0])
    ends_BT = torch.isin(tokens_BT, ends_E).long()
    ended_BT = ends_BT.cumsum(dim=1) - ends_BT > 0  # an end lies before it
    return tokens_BT.masked_fill(ended_BT, ends[0]), (~ended_BT).sum(dim=1)
