"""Which attention rows of several documents have: on a GPU one that passes over what no document sees, where there is one.

A kernel is tried before it is trusted: forward and backward, at the width of the network's heads, against scaled dot-product attention with
the dense mask. So neither is used where torch has no backward for it (a CPU), nor where it cannot be compiled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.models import attention
from trainjobs.objectives.language.answers import AnswersObjective
from trainjobs.objectives.language.attention import Masks, blocks, bounds, of_documents
from trainjobs.objectives.phase import Model
from trainjobs.objectives.precision import LOW

Kind = Literal["flex", "varlen"]
KINDS: Mapping[Kind, Masks] = {"flex": blocks, "varlen": bounds}
NEAR = 0.05  # of the largest number: what half precision leaves of two ways to sum
WHERE = "spec.language.attention"


def attended(model: Model, spec: Spec, device: torch.device) -> tuple[Model, str]:
    """The model with the attention that its manifest asks for, and in words which one that is, "" where rows hold one document each.

    JobError GTJ0108 for one that the rows, the model or the device cannot have.
    """
    objective, family = model.objective, spec.language
    asked = family.attention if family else "auto"
    several = family is not None and family.packing != "none" and isinstance(objective, AnswersObjective) and not objective.stream
    if not several or not isinstance(objective, AnswersObjective):
        if asked in KINDS:
            why, how = "it passes over what documents of a row do not see of each other", "take it out, or set language.packing: bfd"
            raise JobError("GTJ0108", f"attention: {asked} where every row is one text", where=WHERE, why=why, how=how)
        return model, ""
    if asked == "sdpa" or (asked == "auto" and device.type != "cuda"):
        return model, "sdpa"
    kind: Kind = "varlen" if asked == "varlen" else "flex"
    why_not = unfit(objective.model) or failing(kind, device, LOW.get(spec.training.precision, torch.float32), *heads(objective.model))
    if why_not and asked == "auto":
        return model, f"sdpa ({kind}: {why_not})"
    if why_not:
        raise JobError("GTJ0108", f"attention: {kind} cannot be used", where=WHERE, why=why_not, how="set attention: sdpa, or auto")
    return replace(model, objective=replace(objective, masks=KINDS[kind])), kind


def unfit(network: nn.Module) -> str:
    """Why a network cannot have another attention than its own; "" where it can."""
    config: Any = getattr(network, "config", None)
    if getattr(config, "_attn_implementation", None) != attention.NAME:
        return f"{getattr(config, 'model_type', 'the model')} makes its own masks: windows, or keys before the text"
    dropout = next((getattr(config, name) for name in ("attn_pdrop", "attention_dropout") if getattr(config, name, 0)), 0)
    return f"it has no dropout, and the model's is {dropout:g}" if dropout else ""


def heads(network: nn.Module) -> tuple[int, int, int]:
    """(heads of queries, those of keys, their width)."""
    config: Any = network.config
    queries = int(config.num_attention_heads)
    width = getattr(config, "head_dim", None) or config.hidden_size // queries
    return queries, int(getattr(config, "num_key_value_heads", None) or queries), int(width)


def failing(kind: Kind, device: torch.device, dtype: torch.dtype, queries: int, keys: int, width: int) -> str:
    """Why attention of that shape cannot be trained there, in a line; "" where its outputs and gradients are those of a dense mask."""
    generator = torch.Generator().manual_seed(0)
    documents_BL = torch.tensor([0] * 80 + [1] * 48 + [2] * 1 + [3] * 127)[None].to(device)
    shapes = [(1, number, documents_BL.shape[1], width) for number in (queries, keys, keys, queries)]
    *given, weight = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    mask, told = of_documents(documents_BL), KINDS[kind](documents_BL)

    def plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        found = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, enable_gqa=queries != keys)
        return found.transpose(1, 2)

    def ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if kind == "flex":
            return attention.by_blocks(query, key, value, told[attention.BLOCKS], None)
        return attention.by_bounds(query, key, value, told["cu_seq_lens_q"], told["max_length_q"], None)

    try:
        pairs = zip(*(_measured(way, given, weight.transpose(1, 2)) for way in (ours, plain)), strict=True)
        apart = max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)
    except Exception as error:  # of a compiler, of a driver: whatever it is, it cannot be used
        return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200] if str(error).strip() else 'no reason given'}"
    return "" if apart < NEAR else f"it is off by {apart:.2g} from scaled dot-product attention"


def _measured(way: Callable[..., Tensor], given: list[Tensor], weight: Tensor) -> list[Tensor]:
    """Output and gradients, float32."""
    own = [part.detach().clone().requires_grad_() for part in given]
    with torch.enable_grad():
        made = way(*own)
        return [part.detach().float() for part in (made, *torch.autograd.grad((made * weight).sum(), own))]
