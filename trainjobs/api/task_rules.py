"""Rules of language models that are not causal: what they go on from, and what of a causal model's settings they have."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.language import Language, Masking
from trainjobs.api.pretrained import VIRTUAL
from trainjobs.api.rule import Breach, Rule

CAUSAL_ALONE = (*VIRTUAL, "bottleneck")  # adapters that stand before a text, or between the blocks of one stack


def goes_on_from_a_base(language: Language) -> Iterator[Breach]:
    if language.task != "causal" and language.base is None:
        why = "only causal models are made from language.network"
        how = "name a trained model of that kind in language.base.source"
        yield Breach(("task",), f"task: {language.task} without a base", why, how, on_key=True)


def has_such_an_adapter(language: Language) -> Iterator[Breach]:
    if language.task != "causal" and language.adapter is not None and language.adapter.type in CAUSAL_ALONE:
        what = f"adapter {language.adapter.type} with task: {language.task}"
        yield Breach(("adapter", "type"), what, "it stands before a text that is gone on with", "take lora, dora or ia3")


def loss_is_whole(language: Language) -> Iterator[Breach]:
    if language.task == "causal":
        return
    if language.loss.tokens != "auto":
        why = "which tokens are learned is what the task is"
        yield Breach(("loss", "tokens"), f"loss.tokens with task: {language.task}", why, "take tokens out", on_key=True)
    if language.loss.chunk is not None:
        why = "the cross-entropy by pieces is that of causal models"
        yield Breach(("loss", "chunk"), f"loss.chunk with task: {language.task}", why, "take chunk out", on_key=True)


def shares_add_up(masking: Masking) -> Iterator[Breach]:
    if masking.replaced + masking.random > 1:
        what = f"replaced {masking.replaced:g} and random {masking.random:g} are more than all of them"
        yield Breach(("random",), what, how="lower one of them")


RULES = (
    Rule(
        "spec.language",
        "GTJ0108",
        goes_on_from_a_base,
        "self.task == 'causal' || has(self.base)",
        "task masked, seq2seq or caption without base: only causal models are made from network",
    ),
    Rule(
        "spec.language",
        "GTJ0108",
        has_such_an_adapter,
        f"self.task == 'causal' || !has(self.adapter) || !(self.adapter.type in {list(CAUSAL_ALONE)})",
        "this adapter is one of causal models alone: take lora, dora or ia3",
    ),
    Rule(
        "spec.language",
        "GTJ0108",
        loss_is_whole,
        "self.task == 'causal' || (self.loss.tokens == 'auto' && !has(self.loss.chunk))",
        "loss.tokens and loss.chunk are of causal models alone",
    ),
    Rule(
        "spec.language.masking",
        "GTJ0108",
        shares_add_up,
        "self.replaced + self.random <= 1.0",
        "masking: replaced and random are more than all of them together",
    ),
)
