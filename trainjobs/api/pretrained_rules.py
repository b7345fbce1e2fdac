"""Rules of a base and its adapter, and of what stands beside them in a manifest."""

from __future__ import annotations

import re
from collections.abc import Iterator

from trainjobs.api import uris
from trainjobs.api.job import Spec
from trainjobs.api.language import TEMPLATES, Language, Transformer
from trainjobs.api.only import untouched
from trainjobs.api.pretrained import HUB, VIRTUAL, Adapter, Base
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.api.rule import Breach, Rule


def source_lies_somewhere(source: str) -> Iterator[Breach]:
    if source.startswith("hf://"):
        if not re.match(HUB, source):
            how = "write hf://organisation/name, and a branch, tag or commit as base.revision"
            yield Breach((), f"{source} names no model of the hub", how=how)
        else:
            yield from uris.location(source)
    elif uris.relative(source):
        why = "it is resolved where the manifest lies, by gtj run and gtj validate; a cluster has no such folder"
        yield Breach((), f"{source} is a relative path", why, "copy the model to a bucket and name that, or name an absolute path")
    else:
        yield from uris.location(source)


def template_is_known(asked: str) -> Iterator[Breach]:
    if asked in TEMPLATES:
        return
    if re.match("(file|s3|gs|az)://.", asked):
        yield from source_lies_somewhere(asked)
    else:
        how = (
            did_you_mean(asked, TEMPLATES)
            or f"write {listed(TEMPLATES)}, or the URI of a file: {uris.meant(asked) or 'file:///chat.jinja'}"
        )
        yield Breach((), f'there is no chat template "{asked}"', f"known by name are {listed(TEMPLATES, 'and')}", how, code="GTJ0102")


def revision_is_the_hub_s(base: Base) -> Iterator[Breach]:
    if base.revision is not None and not base.source.startswith("hf://"):
        what, why = f"revision beside {base.source}", "only the hub keeps several"
        yield Breach(("revision",), what, why, "take revision out", on_key=True)


def base_or_network(language: Language) -> Iterator[Breach]:
    """Of network only contextLength counts beside a base; defaults never offend."""
    plain = Language()
    changed = [
        name for name in Transformer.model_fields
        if name != "context_length" and getattr(language.network, name) != getattr(plain.network, name)
    ]  # fmt: skip
    if language.base is None:
        if language.adapter is not None:
            how = "name a trained model in language.base.source"
            yield Breach(("adapter",), "an adapter without a base", "it changes a model that was trained before", how, on_key=True)
        if language.unfreezing is not None:
            why = "what has random weights trains from the start"
            yield Breach(("unfreezing",), "unfreezing without a base", why, "take unfreezing out", on_key=True)
        if language.template is not None:
            why = "a tokenizer of the job's own has no special tokens, and conversations are written in one way alone"
            yield Breach(
                ("template",),
                "template without a base",
                why,
                "name a trained model in language.base.source, or take template out",
                on_key=True,
            )
        return
    if language.adapter is not None and language.unfreezing is not None:
        why = "with an adapter the base stays as it is"
        yield Breach(("unfreezing",), "unfreezing beside adapter", why, "keep one of them", on_key=True)
    for name in changed:
        why = "the network is the base's; of language.network only contextLength counts beside it"
        alias = Transformer.model_fields[name].alias or name
        yield Breach(("network", alias), f"network.{alias} beside base", why, "keep one of them", on_key=True)
    if language.tokenizer != plain.tokenizer:
        why = "a base has its own, and knows no other tokens"
        yield Breach(("tokenizer",), "tokenizer beside base", why, "take language.tokenizer out", on_key=True)
    if language.adapter is not None and language.adapter.shifts >= language.network.context_length:
        what = f"virtualTokens {language.adapter.shifts} with a contextLength of {language.network.context_length}"
        how = "lower virtualTokens, or raise language.network.contextLength"
        yield Breach(("adapter", "virtualTokens"), what, "they would be longer than the text", how)


def text_is_given(adapter: Adapter) -> Iterator[Breach]:
    if adapter.init == "text" and not adapter.init_text:
        yield Breach(("init",), "init: text without a text", how="write it in adapter.initText, or take another init", on_key=True)


def one_beginning(spec: Spec) -> Iterator[Breach]:
    if spec.language is not None and spec.language.base is not None and spec.training.initial_weights is not None:
        what, why = "training.initialWeights beside language.base", "both say which weights the run begins with"
        yield Breach(("training", "initialWeights"), what, why, "keep one of them", on_key=True)


def one_way_to_freeze(spec: Spec) -> Iterator[Breach]:
    if spec.language is not None and spec.language.unfreezing is not None and spec.training.freeze:
        what, why = "training.freeze beside language.unfreezing", "both say which blocks of the base train when"
        yield Breach(("training", "freeze"), what, why, "keep one of them", on_key=True)


def prefix_stands_alone(spec: Spec) -> Iterator[Breach]:
    """A prefix is keys and values from before the text: a block that is computed again does not know it."""
    if spec.language is None or spec.language.adapter is None or spec.language.adapter.type != "prefix":
        return
    if spec.training.gradient_checkpointing:
        how = "take gradientCheckpointing out, or take another adapter"
        yield Breach(("training", "gradientCheckpointing"), "gradientCheckpointing with a prefix", "its blocks keep no keys", how)


def _rules() -> tuple[Rule, ...]:
    plain = Language()
    network = [
        part
        for part in untouched("self.network", plain.network, type(plain.network), ())
        if not part.startswith("self.network.contextLength")
    ]
    own = " && ".join([*network, *untouched("self.tokenizer", plain.tokenizer, type(plain.tokenizer), ())])
    return (
        *(
            Rule(
                f"{part}.source",
                "GTJ0107",
                source_lies_somewhere,
                f"self.startsWith('hf://') ? self.matches(r'{HUB}') && {uris.CLEAN} : {uris.SOURCE.partition(' : ')[2]}",
                "not a usable URI: hf://organisation/name, a folder in a bucket or an absolute path",
            )
            for part in (
                "spec.language.base",
                "spec.language.distill.teacher",
                *(f"spec.language.{method}.rewards.*" for method in ("grpo", "ppo")),
            )
        ),
        *(
            Rule(
                part,
                "GTJ0108",
                revision_is_the_hub_s,
                "!has(self.revision) || self.source.startsWith('hf://')",
                "revision beside a folder: only the hub keeps several",
            )
            for part in ("spec.language.base", "spec.language.distill.teacher")
        ),
        Rule(
            "spec.language",
            "GTJ0108",
            base_or_network,
            f"has(self.base) ? ({own}) && (!has(self.adapter) || !(self.adapter.type in {list(VIRTUAL)}) || "
            "self.adapter.virtualTokens < self.network.contextLength) && !(has(self.adapter) && has(self.unfreezing)) "
            ": !has(self.adapter) && !has(self.unfreezing) && !has(self.template)",
            "base beside network (but for contextLength) or tokenizer; adapter, unfreezing or template without base; adapter and "
            "unfreezing; or virtualTokens not below contextLength",
        ),
        Rule(
            "spec.language.template",
            "GTJ0107",
            template_is_known,
            rf"self in {list(TEMPLATES)} || (self.matches(r'^(file:///|(s3|gs|az)://[^/@]+(/|$))') && {uris.CLEAN})",
            f"neither {listed(TEMPLATES)} nor a usable URI of a file: file:///chat.jinja, or s3://, gs://, az://",
        ),
        Rule(
            "spec.language.adapter",
            "GTJ0108",
            text_is_given,
            "self.init != 'text' || self.initText != ''",
            "init: text without initText",
        ),
        Rule(
            "spec",
            "GTJ0108",
            one_beginning,
            "!has(self.language) || !has(self.language.base) || !has(self.training.initialWeights)",
            "training.initialWeights beside language.base: both say which weights the run begins with",
        ),
        Rule(
            "spec",
            "GTJ0108",
            one_way_to_freeze,
            "!has(self.language) || !has(self.language.unfreezing) || self.training.freeze.size() == 0",
            "training.freeze beside language.unfreezing: both say which blocks of the base train when",
        ),
        Rule(
            "spec",
            "GTJ0108",
            prefix_stands_alone,
            "!has(self.language) || !has(self.language.adapter) || self.language.adapter.type != 'prefix' || "
            "!self.training.gradientCheckpointing",
            "gradientCheckpointing with a prefix: its blocks keep no keys",
        ),
    )


RULES = _rules()
