"""A model that somebody else has trained, and small parts that are trained beside it, as users write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from trainjobs.api import uris
from trainjobs.api.fields import Model
from trainjobs.api.only import only, untouched
from trainjobs.api.rule import Breach, Rule

if TYPE_CHECKING:
    from trainjobs.api.job import Spec
    from trainjobs.api.language import Language

ModelUri = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^(file://|s3://|gs://|az://|hf://).+$")]
Pattern = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.*?-]+$")
]  # of the names of layers: v_proj, h.*.mlp.c_fc
HUB = r"^hf://[^/@]+/[^/@]+/?$"

LOW_RANK = ("lora", "dora")
VIRTUAL = ("prompt", "pTuning", "prefix")
ALL_LINEAR = "all-linear"


class Base(Model):
    """A trained model of transformers' causal classes, with its tokenizer. Only safetensors are read, and no code that lies beside them."""

    source: ModelUri = Field(
        description="Folder as transformers' save_pretrained writes it (file://, s3://, gs://, az://), or hf://organisation/name of the "
        "hub (TRL, LLaMA-Factory: model_name_or_path; axolotl: base_model)."
    )
    revision: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_./-]+$")] | None = Field(
        None,
        description="Branch, tag or commit of a model of the hub; default: its main branch. A run stays with the commit it began with.",
    )


class Adapter(Model):
    """Small trained parts of a base that stays as it is."""

    type: Literal["lora", "dora", "ia3", "prompt", "pTuning", "prefix", "bottleneck"] = Field(
        "lora",
        description="lora: low-rank changes of layers; dora: the same with trained lengths; ia3: trained factors of keys, values and "
        "feed-forward layers; prompt: trained embeddings before the text; pTuning: the same through a small network; prefix: trained keys "
        "and values in every layer; bottleneck: small layers behind attention and feed-forward layers.",
    )
    rank: Annotated[int, Field(ge=1, le=4096), only(type=LOW_RANK)] = Field(
        16, description="Rank of the change (peft, axolotl: r, lora_r; LLaMA-Factory: lora_rank)."
    )
    alpha: Annotated[float, Field(gt=0, le=1e6), only(type=LOW_RANK)] = Field(
        32.0, description="The change is multiplied by alpha / rank (lora_alpha)."
    )
    dropout: Annotated[float, Field(ge=0, lt=1), only(type=LOW_RANK)] = Field(
        0.05, description="Dropout of what goes into the change (lora_dropout)."
    )
    rank_stabilized: Annotated[bool, only(type=LOW_RANK)] = Field(
        False, description="Multiply by alpha / sqrt(rank) instead (peft: use_rslora)."
    )
    targets: Annotated[list[Pattern], Field(min_length=1, max_length=64), only(type=LOW_RANK)] = Field(
        [ALL_LINEAR],
        description="Layers that are changed: all-linear, or names and patterns of names, such as q_proj or layers.0.*.v_proj. The last "
        "layer, from which the logits come, belongs to all-linear not (lora_target_modules, lora_target).",
    )
    modules_to_save: Annotated[list[Pattern], Field(max_length=64), only(type=(*LOW_RANK, "ia3"))] = Field(
        [], description="Layers that are trained whole beside the adapter, by name (modules_to_save; LLaMA-Factory: additional_target)."
    )
    virtual_tokens: Annotated[int, Field(ge=1, le=4096), only(type=VIRTUAL)] = Field(
        20, description="Trained positions before the text (peft: num_virtual_tokens)."
    )
    init: Annotated[Literal["vocabulary", "random", "text"], only(type="prompt")] = Field(
        "vocabulary",
        description="What the trained embeddings begin as: those of tokens drawn from the vocabulary, N(0, 1), or those of initText "
        "(peft: prompt_tuning_init).",
    )
    init_text: Annotated[str, Field(max_length=4096), only(init="text")] = Field(
        "", description="Text whose embeddings they begin as, repeated or cut to virtualTokens (peft: prompt_tuning_init_text)."
    )
    reduction: Annotated[int, Field(ge=1, le=4096), only(type="bottleneck")] = Field(
        16, description="The model's width over the bottleneck's (adapters: reduction_factor)."
    )

    @property
    def shifts(self) -> int:
        """Positions that the adapter takes of the base's."""
        return self.virtual_tokens if self.type in VIRTUAL else 0


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


def revision_is_the_hub_s(base: Base) -> Iterator[Breach]:
    if base.revision is not None and not base.source.startswith("hf://"):
        what, why = f"revision beside {base.source}", "only the hub keeps several"
        yield Breach(("revision",), what, why, "take revision out", on_key=True)


def base_or_network(language: Language) -> Iterator[Breach]:
    """Of network only contextLength counts beside a base; defaults never offend."""
    plain = type(language)()
    changed = [
        name for name in type(language.network).model_fields
        if name != "context_length" and getattr(language.network, name) != getattr(plain.network, name)
    ]  # fmt: skip
    if language.base is None:
        if language.adapter is not None:
            how = "name a trained model in language.base.source"
            yield Breach(("adapter",), "an adapter without a base", "it changes a model that was trained before", how, on_key=True)
        return
    for name in changed:
        why = "the network is the base's; of language.network only contextLength counts beside it"
        alias = type(language.network).model_fields[name].alias or name
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


def rules(language: type[Language]) -> tuple[Rule, ...]:
    plain = language()
    network = [
        part
        for part in untouched("self.network", plain.network, type(plain.network), ())
        if not part.startswith("self.network.contextLength")
    ]
    own = " && ".join([*network, *untouched("self.tokenizer", plain.tokenizer, type(plain.tokenizer), ())])
    return (
        Rule(
            "spec.language.base.source",
            "GTJ0107",
            source_lies_somewhere,
            f"self.startsWith('hf://') ? self.matches(r'{HUB}') && {uris.CLEAN} : {uris.SOURCE.partition(' : ')[2]}",
            "not a usable URI: hf://organisation/name, a folder in a bucket or an absolute path",
        ),
        Rule(
            "spec.language.base",
            "GTJ0108",
            revision_is_the_hub_s,
            "!has(self.revision) || self.source.startsWith('hf://')",
            "revision beside a folder: only the hub keeps several",
        ),
        Rule(
            "spec.language",
            "GTJ0108",
            base_or_network,
            f"has(self.base) ? ({own}) && (!has(self.adapter) || !(self.adapter.type in {list(VIRTUAL)}) || "
            "self.adapter.virtualTokens < self.network.contextLength) : !has(self.adapter)",
            "base beside network (but for contextLength) or tokenizer; an adapter without base; or virtualTokens not below contextLength",
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
    )
