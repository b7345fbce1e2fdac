"""The network of a language model, and what trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.job import Spec
from trainjobs.api.language import Language, LanguageLoss, heads_divide_hidden
from trainjobs.data.kinds import mismatch
from trainjobs.objectives.language.answers import AnswersObjective
from trainjobs.objectives.language.causal import LanguageObjective
from trainjobs.objectives.phase import Model, model

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(family: Language, info: DataInfo) -> dict[str, nn.Module]:
    from trainjobs.models.transformers import causal_language_model

    network = family.network
    if info.kind != "text" or info.vocabulary is None or info.tokenizer is None:
        raise mismatch("language", "a language model", "text", info)
    for breach in heads_divide_hidden(network):
        raise breach.within("language", "network").problem("GTJ0108", ()).error()
    return {"model": causal_language_model(network, info.vocabulary, info.tokenizer.end)}


def build(spec: Spec, info: DataInfo) -> Model:
    """A causal language model, and what it learns by the manifest's method."""
    family = spec.language
    assert family is not None
    made = networks(family, info)
    tokenizer, context = info.tokenizer, family.network.context_length
    assert tokenizer is not None
    if info.form or family.loss != LanguageLoss():
        return model(made, AnswersObjective(made["model"], tokenizer, context, family.loss, stream=not info.form))
    return model(made, LanguageObjective(made["model"], tokenizer, context))
