"""Rules of language models that are not causal: what they go on from, and what of a causal model's settings they have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trainjobs.api.follows import followed
from trainjobs.api.job import Spec
from trainjobs.api.language import Language, Masking
from trainjobs.api.pretrained import VIRTUAL
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.shape import Path

WRITING = ("seq2seq", "caption")
WRITTEN = ("heldout/bleu", "heldout/rouge_l")  # metrics of what these write
ROOM = 8  # tokens of a context, for a text of which spans are hidden
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


def spans_have_room(language: Language) -> Iterator[Breach]:
    if language.span_corruption is not None and language.network.context_length < ROOM:
        what = f"spanCorruption in a context of {language.network.context_length}"
        yield Breach(("network", "contextLength"), what, "spans, sentinels and an end must fit", f"raise contextLength to {ROOM} or more")


def named(spec: Spec, names: Sequence[str] = WRITTEN) -> dict[Path, str]:
    """Of `names` of metrics those that a manifest measures, by their places; of several in evaluation.metrics the first."""
    best = spec.checkpoints.keep.best
    places = followed(spec)
    if best is not None:
        places["checkpoints", "keep", "best", "metric"] = best.metric
    found = {place: name for place, name in places.items() if name in names}
    for name in reversed(spec.evaluation.metrics):
        if f"heldout/{name}" in names:
            found["evaluation", "metrics"] = name
    return found


def writes(spec: Spec) -> Iterator[Breach]:
    if spec.language is None or spec.language.task in WRITING:
        return
    for place, name in named(spec).items():
        how = f"take it out; a {spec.language.task} model has heldout/loss and heldout/perplexity"
        yield Breach(place, f"{name} with task: {spec.language.task}", "it compares what is written with the data's own text", how)


_BEST, _FOLLOWED = "self.checkpoints.keep.best", ("self.training.schedule", "self.training.earlyStopping")


def none_named(names: Sequence[str]) -> str:
    """CEL: that none of these metrics is measured."""
    return " && ".join(
        [
            f"!self.evaluation.metrics.exists(m, m in {[name.removeprefix('heldout/') for name in names]})",
            f"(!has({_BEST}) || !({_BEST}.metric in {list(names)}))",
            f"({_FOLLOWED[0]}.name != 'plateau' || !({_FOLLOWED[0]}.metric in {list(names)}))",
            f"(!has({_FOLLOWED[1]}) || !({_FOLLOWED[1]}.metric in {list(names)}))",
        ]
    )


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
        "spec.language",
        "GTJ0108",
        spans_have_room,
        f"!has(self.spanCorruption) || self.network.contextLength >= {ROOM}",
        f"spanCorruption needs a contextLength of {ROOM} or more",
    ),
    Rule(
        "spec.language.masking",
        "GTJ0108",
        shares_add_up,
        "self.replaced + self.random <= 1.0",
        "masking: replaced and random are more than all of them together",
    ),
    Rule(
        "spec",
        "GTJ0108",
        writes,
        f"!has(self.language) || self.language.task in {list(WRITING)} || ({none_named(WRITTEN)})",
        "bleu and rouge_l compare what a model of task seq2seq or caption writes with the data's own text",
    ),
)
