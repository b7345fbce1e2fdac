"""The network of a language model, and what trains it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.language import Language
from trainjobs.data.kinds import mismatch
from trainjobs.objectives.language.causal import LanguageObjective
from trainjobs.objectives.phase import Model, model

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(family: Language, info: DataInfo) -> dict[str, nn.Module]:
    from trainjobs.models.transformers import causal_language_model

    network = family.network
    if info.kind != "text" or info.vocabulary is None or info.tokenizer is None:
        raise mismatch("language", "a language model", "text", info)
    if network.hidden % network.heads:
        raise JobError(
            "GTJ0108",
            f"{network.heads} heads do not divide {network.hidden} hidden units",
            where="language.network.heads",
            how="Choose hidden as a multiple of heads",
        )
    if network.architecture == "llama" and network.hidden // network.heads % 2:
        raise JobError(
            "GTJ0108",
            f"a head of {network.hidden // network.heads} units is odd",
            where="language.network.heads",
            why="rotary positions turn pairs of units",
            how="Choose hidden / heads even",
        )
    return {"model": causal_language_model(network, info.vocabulary, info.tokenizer.end)}


def build(spec: Spec, info: DataInfo) -> Model:
    """A causal language model and its cross-entropy."""
    assert spec.language is not None
    made = networks(spec.language, info)
    assert info.tokenizer is not None
    return model(made, LanguageObjective(made["model"], info.tokenizer, spec.language.network.context_length))
