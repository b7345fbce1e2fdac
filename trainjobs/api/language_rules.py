"""What goes together in a language model: method, data, batch and network."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api import uris
from trainjobs.api.alignment import RewardFunction, Worth
from trainjobs.api.job import Spec
from trainjobs.api.language import Language
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule
from trainjobs.api.uris import builtin

# What is built in, by the methods that learn from it.
LEARNED = {
    "sft": ("stdlib-text", "stdlib-pairs", "stdlib-chat"),
    "reward": ("stdlib-preferences",),
    "dpo": ("stdlib-preferences",),
    "grpo": ("stdlib-pairs",),
    "ppo": ("stdlib-pairs",),
    "distill": ("stdlib-text", "stdlib-pairs", "stdlib-chat"),
}
TASKS = {"masked": ("stdlib-text",), "seq2seq": ("stdlib-pairs",), "caption": ()}  # the same of the tasks that have one method alone
SPANS = ("stdlib-text",)  # of seq2seq with spanCorruption
STEADY = ("dpo", "grpo", "ppo")  # methods that compare probabilities of two passes
NEEDS = {"regex": "pattern", "length": "target", "match": "column"}


def method_fits_data(spec: Spec) -> Iterator[Breach]:
    name = builtin(spec.data.uri)
    if spec.language is None or name is None or not name.startswith("stdlib-"):
        return
    task, method = spec.language.task, spec.language.method
    spans = spec.language.span_corruption is not None
    good = SPANS if spans else LEARNED[method] if task == "causal" else TASKS[task]
    if good and name not in good:  # that captions are of pictures, learners.py says
        what = f"{'spanCorruption' if spans else method if task == 'causal' else task} cannot learn from builtin:{name}"
        how = f"use {listed(f'builtin:{one}' for one in good)}, or data of your own with the columns of the method"
        yield Breach(("data", "source"), what, "its columns are those of another method", how)


def groups_fill_batch(spec: Spec) -> Iterator[Breach]:
    if spec.language is None or spec.language.method != "grpo":
        return
    size, group = spec.training.batch.global_, spec.language.grpo.generations
    if size % group:
        near = sorted({max(group, size // group * group), -(-size // group) * group})
        what = f"{group} generations do not divide a global batch of {size}"
        how = f"nearest sizes that they do: {listed(near)}"
        yield Breach(("training", "batch", "global"), what, "a prompt's completions are compared with each other", how)


def steady(language: Language) -> Iterator[Breach]:
    if language.method in STEADY and language.network.dropout:
        what = f"dropout {language.network.dropout:g} with method: {language.method}"
        why = "probabilities of two passes are compared, which dropout would make differ by themselves"
        yield Breach(("network", "dropout"), what, why, "take dropout out", on_key=True)


def attentive(spec: Spec) -> Iterator[Breach]:
    own = spec.language
    if own is None or own.attention not in ("flex", "varlen"):
        return
    at, what = ("language", "attention"), f"attention: {own.attention}"
    if spec.compute.gpus_per_worker == 0:
        yield Breach(at, f"{what} without a GPU", "on a CPU it has no backward pass", "set compute.gpusPerWorker, or attention: sdpa")
    if own.packing == "none":
        how = "take attention out, or set packing: bfd"
        yield Breach(at, f"{what} has no effect with packing: none", "every row is one document", how)
    if own.network.dropout:
        yield Breach(at, f"{what} with dropout {own.network.dropout:g}", "it has none", "set attention: sdpa, or take dropout out")
    if own.attention == "varlen" and spec.training.precision == "fp32":
        yield Breach(at, f"{what} with precision: fp32", "its kernel is of half precision", "set training.precision: bf16")


def rewarded(language: Language) -> Iterator[Breach]:
    method, own = language.method, language.rewarded
    if own is None:
        return
    if not own.rewards:
        how = "add rewards: [{function: package.module:function}], or one of length, regex and match"
        yield Breach((method,), f"{method} without rewards", "they are what completions are better or worse by", how, on_key=True)
    if own.max_completion >= language.network.context_length:
        what = f"maxCompletion {own.max_completion} of a context of {language.network.context_length}"
        yield Breach((method, "maxCompletion"), what, "it leaves no room for a prompt", "lower it, or raise network.contextLength")


def taught(language: Language) -> Iterator[Breach]:
    if language.method != "distill":
        return
    own = language.distill
    if own.teacher is None:
        how = "name a trained model in distill.teacher.source"
        yield Breach(("distill",), "distill without a teacher", "it is what is learned from", how, on_key=True)
    if language.loss.chunk is not None:
        why = "both networks' whole distributions are compared"
        yield Breach(("loss", "chunk"), "chunk has no effect with method: distill", why, "take chunk out", on_key=True)
    if own.top_k is not None:
        for field, value, why in (
            ("onPolicy", own.on_policy, "the teacher is asked before the first step, and what the student draws is not known then"),
            ("hiddenStates", own.hidden_states, "of the teacher's likeliest tokens there are no hidden states"),
        ):
            if value:
                yield Breach(("distill", "topK"), f"topK with {field}: {value:g}", why, f"take {field} out, or topK", on_key=True)
    if own.prepared is not None and own.top_k is None:
        why, how = "only a teacher's likeliest tokens are prepared", "set topK to what they were prepared with, or take prepared out"
        yield Breach(("distill", "prepared"), "prepared without topK", why, how, on_key=True)
    if own.on_policy and language.packing != "none":
        what, why = f"onPolicy with packing: {language.packing}", "a completion is drawn for the one document of a row"
        yield Breach(("packing",), what, why, "set packing: none")
    if not own.on_policy and own.max_completion != type(own)().max_completion:
        yield Breach(
            ("distill", "maxCompletion"), "maxCompletion has no effect with onPolicy: 0", how="or take maxCompletion out", on_key=True
        )
    if own.on_policy and own.max_completion >= language.network.context_length:
        what = f"maxCompletion {own.max_completion} of a context of {language.network.context_length}"
        yield Breach(("distill", "maxCompletion"), what, "it leaves no room for a prompt", "lower it, or raise network.contextLength")


def one_of_both(asked: RewardFunction) -> Iterator[Breach]:
    if (asked.function is None) == (asked.source is None):
        what = "a reward with neither function nor source" if asked.function is None else "a reward with function and source"
        yield Breach((), what, "it is a function or a trained model", "name one of them")


def whole(asked: Worth) -> Iterator[Breach]:
    for name, needed in NEEDS.items():
        given = getattr(asked, needed) is not None
        if asked.function == name and not given:
            yield Breach(("function",), f"{name} without {needed}", how=f"add {needed}")
        if asked.function != name and given:
            yield Breach(
                (needed,),
                f"{needed} has no effect with {asked.function or 'a model'}; use {name}",
                how=f"or take {needed} out",
                on_key=True,
            )


def needed_by(path: str) -> Rule:
    """What the functions of ours need, of rewards at a path."""
    cel = " && ".join(f"(has(self.function) && self.function == '{name}') == has(self.{needed})" for name, needed in NEEDS.items())
    return Rule(path, "GTJ0108", whole, cel, "regex needs pattern, length target, match column, and no other reward has them")


_METHODS = " || ".join(
    f"(self.language.{field} == '{value}' && self.data.source in {[f'builtin:{one}' for one in good]}{more})"
    for field, more, table in (
        ("method", " && self.language.task == 'causal'", LEARNED),
        ("task", " && !has(self.language.spanCorruption)", TASKS),
        ("task", " && has(self.language.spanCorruption)", {"seq2seq": SPANS}),
    )
    for value, good in table.items()
    if good
)


def answers_lie_somewhere(uri: str) -> Iterator[Breach]:
    return uris.prefix(uri, "what a teacher says lies in a folder of it")


RULES = (
    Rule("spec.language.distill.prepared", "GTJ0107", answers_lie_somewhere, uris.PREFIX, uris.UNUSABLE),
    Rule(
        "spec",
        "GTJ0108",
        method_fits_data,
        f"!has(self.language) || !has(self.data.source) || !self.data.source.startsWith('builtin:stdlib-') || {_METHODS}",
        "the method does not learn from this built-in data",
    ),
    Rule(
        "spec",
        "GTJ0103",
        groups_fill_batch,
        "!has(self.language) || self.language.method != 'grpo' || self.training.batch.global % self.language.grpo.generations == 0",
        "language.grpo.generations does not divide training.batch.global",
    ),
    Rule(
        "spec",
        "GTJ0108",
        attentive,
        "!has(self.language) || !(self.language.attention in ['flex', 'varlen']) || (self.compute.gpusPerWorker > 0 && "
        "self.language.packing != 'none' && self.language.network.dropout == 0.0 && "
        "(self.language.attention == 'flex' || self.training.precision != 'fp32'))",
        "attention: flex and varlen need a GPU, a packing other than none and no dropout, and varlen half precision",
    ),
    Rule(
        "spec.language",
        "GTJ0108",
        steady,
        f"!(self.method in {list(STEADY)}) || self.network.dropout == 0.0",
        "dropout has no place in dpo, grpo and ppo: probabilities of two passes are compared",
    ),
    Rule(
        "spec.language",
        "GTJ0108",
        rewarded,
        " && ".join(
            f"(self.method != '{name}' || (size(self.{name}.rewards) > 0 && self.{name}.maxCompletion < self.network.contextLength))"
            for name in ("grpo", "ppo")
        ),
        "grpo and ppo need rewards, and a maxCompletion below network.contextLength",
    ),
    Rule(
        "spec.language",
        "GTJ0108",
        taught,
        "self.method != 'distill' || (has(self.distill.teacher) && !has(self.loss.chunk) && "
        "(!has(self.distill.prepared) || has(self.distill.topK)) && "
        "(!has(self.distill.topK) || (self.distill.onPolicy == 0.0 && self.distill.hiddenStates == 0.0)) && (self.distill.onPolicy > 0.0 ? "
        "self.packing == 'none' && self.distill.maxCompletion < self.network.contextLength : self.distill.maxCompletion == 64))",
        "distill needs a teacher, no loss.chunk, topK with prepared, with topK no onPolicy and no hiddenStates, and with onPolicy packing: "
        "none and a maxCompletion below network.contextLength; without onPolicy it has no effect",
    ),
    *(needed_by(f"spec.language.{method}.rewards.*") for method in ("grpo", "ppo")),
    *(
        Rule(
            f"spec.language.{method}.rewards.*",
            "GTJ0108",
            one_of_both,
            "has(self.function) != has(self.source)",
            "a reward has either function or source",
        )
        for method in ("grpo", "ppo")
    ),
)
