"""The network of a language model, and what trains it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.language import Language, LanguageLoss, heads_divide_hidden
from trainjobs.api.language_rules import STEADY
from trainjobs.api.pretrained import VIRTUAL
from trainjobs.data.captioned import Captions
from trainjobs.data.kinds import mismatch
from trainjobs.data.pretrained import CONFIG, Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.objectives.language.answers import AnswersObjective
from trainjobs.objectives.language.causal import LanguageObjective
from trainjobs.objectives.language.contest import Contest
from trainjobs.objectives.language.distilling import DistillObjective
from trainjobs.objectives.language.grpo import GrpoObjective
from trainjobs.objectives.language.headed import Valued
from trainjobs.objectives.language.masked import MaskedObjective
from trainjobs.objectives.language.ppo import PpoObjective
from trainjobs.objectives.language.preference import DpoObjective, RewardObjective, Scored
from trainjobs.objectives.language.pretrained import trained
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.language.seq2seq import Seq2SeqObjective
from trainjobs.objectives.language.unfreezing import unfrozen
from trainjobs.objectives.phase import Model, Network

if TYPE_CHECKING:
    from trainjobs.data.source import DataInfo


def networks(family: Language, info: DataInfo, *, half: bool = False) -> dict[str, nn.Module]:
    from trainjobs.models.transformers import causal_language_model

    if family.base is not None and info.kind == ("image" if family.task == "caption" else "text"):
        return {"model": trained(family, info, half=half)}
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
    answers = bool(info.form) or family.loss != LanguageLoss()
    if family.adapter is not None and family.adapter.type in VIRTUAL and answers:
        why = "what is learned of records is found by position, and virtual tokens stand before them"
        how = "take lora, dora, ia3 or bottleneck, or plain text"
        raise JobError("GTJ0108", f"adapter {family.adapter.type} with records", where="language.adapter.type", why=why, how=how)
    made = networks(family, info, half=spec.training.precision == "bf16")["model"]
    tokenizer, context = info.tokenizer, family.network.context_length
    assert tokenizer is not None
    if family.method in STEADY:
        steady(made)
    origin = tokenizer.base.digest if isinstance(tokenizer, PretrainedTokenizer) else ""
    if family.method == "reward":
        scored = Scored(made)
        if family.adapter is not None:
            held_by(scored, made)
        return Model({"model": Network(scored, origin=origin)}, RewardObjective(scored, family.reward))
    if family.method == "dpo":
        networks_, reference = referring(made, origin)
        contest = Contest.of(spec, made, reference, tokenizer)
        return Model(networks_, DpoObjective(made, reference, tokenizer, context, family.dpo, contest), copies=copies_of(networks_))
    if family.method == "grpo":
        networks_, reference = referring(made, origin) if family.grpo.beta else ({"model": Network(made, origin=origin)}, None)
        rewards = Rewards.of(family.grpo.rewards, family.grpo.time_limit, "language.grpo")
        contest = Contest.of(spec, made, reference, tokenizer)
        own_ = GrpoObjective(made, reference, tokenizer, context, family.grpo, rewards, contest)
        return Model(networks_, own_, copies=copies_of(networks_))
    if family.method == "ppo":
        held, reference = referring(made, origin) if family.ppo.kl_coefficient else ({}, None)
        valued = Valued(made)
        networks_ = {**held, "model": Network(valued, origin=origin)}
        rewards = Rewards.of(family.ppo.rewards, family.ppo.time_limit, "language.ppo")
        contest = Contest.of(spec, made, reference, tokenizer)
        learned = PpoObjective(valued, reference, tokenizer, context, family.ppo, rewards, contest)
        return Model(networks_, learned, copies=copies_of(networks_))
    if family.method == "distill":
        own = DistillObjective(made, None, tokenizer, context, family.loss, family.distill, stream=not info.form)
        return Model({"model": Network(made, origin=origin)}, own)
    if family.task != "causal":
        return other(family, made, info, origin)
    network = Network(made, origin=origin)
    if family.unfreezing is not None:
        network = unfrozen("model", made, family.unfreezing, origin)
    if answers:
        return Model({"model": network}, AnswersObjective(made, tokenizer, context, family.loss, stream=not info.form))
    return Model({"model": network}, LanguageObjective(made, tokenizer, context))


def held_by(scored: Scored, adapted: nn.Module) -> None:
    """See that all of the adapter is in the model of rewards. JobError GTJ0108 for one that changes the last layer."""
    kept = {id(parameter) for parameter in scored.parameters()}
    if lost := [name for name, p in adapted.named_parameters() if p.requires_grad and id(p) not in kept]:
        why, how = "a score stands in its place, which is trained whole", "take the last layer out of targets and modulesToSave"
        layer = lost[0].removeprefix("base_model.model.").partition(".")[0]
        raise JobError("GTJ0108", f"the adapter changes {layer} of a model of rewards", where="language.adapter", why=why, how=how)


def steady(network: nn.Module) -> None:
    """Without dropout, a base's or adapters': probabilities of two passes would differ by themselves."""
    for module in network.modules():
        given: Any = module
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            given.attention_dropout = 0.0


def other(family: Language, made: nn.Module, info: DataInfo, origin: str) -> Model:
    """A model that is not causal. JobError GTJ0109 for a masked one whose tokenizer has no mask, GTJ0108 for pictures of another size than
    the encoder's."""
    tokenizer, context, smoothing = info.tokenizer, family.network.context_length, family.loss.label_smoothing
    assert isinstance(tokenizer, PretrainedTokenizer)
    if family.task == "masked":
        if tokenizer.mask is None:
            why, how = "tokenizer_config.json names no mask_token", "take a model that was trained with masks"
            raise JobError("GTJ0109", "the base has no mask", where=tokenizer.base.uri, why=why, how=how)
        network = Network(made, origin=origin)
        if family.unfreezing is not None:
            network = unfrozen("model", made, family.unfreezing, origin)
        return Model({"model": network}, MaskedObjective(made, tokenizer, tokenizer.mask, context, family.masking, smoothing))
    networks_ = {"model": Network(made, origin=origin)}
    if family.task == "seq2seq":
        spans = family.span_corruption is not None
        return Model(networks_, Seq2SeqObjective(made, tokenizer, context, smoothing, sentinels=spans))
    mean, deviation = seen_as(tokenizer.base, info.shape)
    return Model(networks_, Seq2SeqObjective(made, tokenizer, context, smoothing, mean, deviation), encode=Captions(tokenizer, context))


def seen_as(base: Pretrained, shape: tuple[int, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(mean, deviation) of each channel, to which the base's encoder wants pictures normalised. JobError GTJ0108 for pictures of another
    size or another number of channels."""
    channels, size, _ = shape
    encoder = base.json(CONFIG).get("encoder", {})
    for field, has, wanted in (("size", size, encoder.get("image_size")), ("channels", channels, encoder.get("num_channels"))):
        if isinstance(wanted, int) and has != wanted:
            why, how = f"the base's encoder takes {wanted}", f"set data.images.{field} to {wanted}, or take another base"
            raise JobError("GTJ0108", f"pictures of {field} {has}", where=f"data.images.{field}", why=why, how=how)
    told = base.json("preprocessor_config.json")
    usual = [0.5] * channels  # of transformers' ViT
    return tuple(told.get("image_mean", usual)), tuple(told.get("image_std", usual))


def referring(trained: nn.Module, origin: str) -> tuple[dict[str, Network], nn.Module | None]:
    """The networks of a model that is held by a reference, and that: a frozen copy of how it began, or None where it is the network
    itself without its adapters."""
    if hasattr(trained, "disable_adapter"):
        return {"model": Network(trained, origin=origin)}, None
    reference = copy.deepcopy(trained).requires_grad_(False)
    return {"model": Network(trained, origin=origin), "reference": Network(reference, groups={}, averaged=False, origin=origin)}, reference


def copies_of(networks_: Mapping[str, Network]) -> dict[str, str]:
    return {"reference": "model"} if "reference" in networks_ else {}
