"""The network of a language model, and what trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.job import Spec
from trainjobs.api.language import Language, heads_divide_hidden
from trainjobs.data.kinds import mismatch
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.objectives.language.causal import LanguageObjective
from trainjobs.objectives.language.pretrained import trained
from trainjobs.objectives.language.unfreezing import unfrozen
from trainjobs.objectives.phase import Model, Network

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(family: Language, info: DataInfo, *, half: bool = False) -> dict[str, nn.Module]:
    from trainjobs.models.transformers import causal_language_model

    if family.base is not None and info.kind == "text":
        return {"model": trained(family, info, half=half)}
    network = family.network
    if info.kind != "text" or info.vocabulary is None or info.tokenizer is None:
        raise mismatch("language", "a language model", "text", info)
    for breach in heads_divide_hidden(network):
        raise breach.within("language", "network").problem("GTJ0108", ()).error()
    return {"model": causal_language_model(network, info.vocabulary, info.tokenizer.end)}


def build(spec: Spec, info: DataInfo) -> Model:
    """A causal language model and its cross-entropy."""
    assert spec.language is not None
    made = networks(spec.language, info, half=spec.training.precision == "bf16")
    assert info.tokenizer is not None
    origin = info.tokenizer.base.digest if isinstance(info.tokenizer, PretrainedTokenizer) else ""
    objective = LanguageObjective(made["model"], info.tokenizer, spec.language.network.context_length)
    network = Network(made["model"], origin=origin)
    if spec.language.unfreezing is not None:
        network = unfrozen("model", made["model"], spec.language.unfreezing, origin)
    return Model({"model": network}, objective)
