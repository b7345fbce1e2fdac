"""The network of a language model that was trained before, and what of it is trained now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.language import Language
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def trained(family: Language, info: DataInfo, *, half: bool) -> nn.Module:
    """The base, or the base with an adapter, beside which it asks for no gradient; `half`: it is held in bfloat16 then.

    JobError GTJ0109 when it cannot be used, GTJ0108 when its context is too short, GTJ0102 for layers that it has not.
    """
    from trainjobs.models.adapters import adapted
    from trainjobs.models.pretrained import load

    tokenizer, adapter = info.tokenizer, family.adapter
    assert isinstance(tokenizer, PretrainedTokenizer)
    shifts = adapter.shifts if adapter else 0
    prefix = adapter is not None and adapter.type == "prefix"
    length = family.network.context_length + shifts
    model = load(tokenizer.base, half=half and adapter is not None, context=length, mask=prefix, task=family.task)
    return adapted(model, adapter, tokenizer, family.task) if adapter else model
