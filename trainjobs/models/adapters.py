"""Adapters of a trained language model, by peft, but for bottlenecks, which are our own.

LoRA (Hu et al., 2021, arXiv 2106.09685): W + (alpha / rank) B A, B = 0 at first; rank-stabilised (Kalajdzievski, 2023): alpha / sqrt(rank).
DoRA (Liu et al., 2024, arXiv 2402.09353): m (W + s B A) / |W + s B A|, the norm of each column without gradient. IA3 (Liu et al., 2022,
arXiv 2205.05638): keys, values and the input of the feed-forward's last layer times a trained vector, 1 at first. Prompt tuning (Lester
et al., 2021, arXiv 2104.08691): embeddings before the text. P-tuning (Liu et al., 2021, arXiv 2103.10385): those through a small network.
Prefix tuning (Li and Liang, 2021, arXiv 2101.00190): keys and values before those of the text, in every layer.

peft is imported inside the functions: it takes seconds.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.pretrained import ALL_LINEAR, VIRTUAL, Adapter
from trainjobs.models.bottleneck import add_bottlenecks
from trainjobs.models.pretrained import Kind

if TYPE_CHECKING:
    from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer

ROWS = "trainable_tokens_delta"  # of the names of parameters that are rows of an embedding
CHANGEABLE = (nn.Linear, nn.Embedding)


def adapted(model: nn.Module, adapter: Adapter, tokenizer: PretrainedTokenizer | None = None, task: Kind = "causal") -> nn.Module:
    """The model with an adapter, whose parameters alone ask for a gradient. They come from torch's global generator, which the caller
    seeds. `tokenizer` gives the first embeddings of a prompt, which without it are random, and the numbers of trained tokens.

    JobError GTJ0102 for layers and tokens that are not there, GTJ0109 for a model of which IA3 does not know the layers.
    """
    if adapter.type == "bottleneck":
        width = model.config.get_text_config().hidden_size  # type: ignore[operator, union-attr]
        if not add_bottlenecks(model, width, adapter.reduction):
            raise JobError("GTJ0109", "no layer for a bottleneck", where="language.adapter.type", why=names(model), how="take lora")
        return model
    config = peft_config(model, adapter, task)
    if adapter.train_tokens:
        assert tokenizer is not None
        config.trainable_token_indices = numbered(adapter.train_tokens, tokenizer)
    from peft import get_peft_model

    from trainjobs.models.virtual_tokens import VirtualTokens

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)  # peft asks transformers by an old name
        if adapter.type not in VIRTUAL:
            changed: nn.Module = get_peft_model(model, config)
            for name, parameter in changed.named_parameters():
                if ROWS in name:
                    parameter.data = parameter.data.float()  # peft does so with all else that is trained beside a base in bfloat16
            return changed
        prompted: nn.Module = VirtualTokens(model, config)
    if adapter.type == "prompt" and tokenizer is not None:
        begin(prompted, adapter, tokenizer)
    return prompted


def peft_config(model: nn.Module, adapter: Adapter, task: Kind = "causal") -> Any:
    """peft's configuration of an adapter. JobErrors of `adapted`."""
    import peft
    from transformers.pytorch_utils import Conv1D

    common: dict[str, Any] = {"task_type": {"causal": "CAUSAL_LM", "seq2seq": "SEQ_2_SEQ_LM", "reward": "SEQ_CLS"}.get(task)}
    turned = {"fan_in_fan_out": any(isinstance(layer, Conv1D) for layer in model.modules())}  # GPT-2 has its weights the other way round
    whole: dict[str, Any] = {"modules_to_save": saved(model, adapter.modules_to_save) or None}
    match adapter.type:
        case "lora" | "dora":
            return peft.LoraConfig(
                r=adapter.rank,
                lora_alpha=adapter.alpha,
                lora_dropout=adapter.dropout,
                use_rslora=adapter.rank_stabilized,
                use_dora=adapter.type == "dora",
                target_modules=targeted(model, adapter.targets),
                **turned,
                **whole,
                **common,
            )
        case "ia3":
            return peft.IA3Config(**_ia3(model), **turned, **whole, **common)
        case "prompt":
            return peft.PromptTuningConfig(num_virtual_tokens=adapter.virtual_tokens, **common)
        case "pTuning":
            hidden = model.config.get_text_config().hidden_size  # type: ignore[operator, union-attr]
            return peft.PromptEncoderConfig(num_virtual_tokens=adapter.virtual_tokens, encoder_hidden_size=hidden, **common)
        case _:
            return peft.PrefixTuningConfig(num_virtual_tokens=adapter.virtual_tokens, **common)


def targeted(model: nn.Module, patterns: Sequence[str]) -> str | list[str]:
    """What peft is to be told: the layers by their whole names. JobError GTJ0102 for a pattern that fits none."""
    if list(patterns) == [ALL_LINEAR]:
        return ALL_LINEAR
    from transformers.pytorch_utils import Conv1D

    layers = [name for name, layer in model.named_modules() if isinstance(layer, (*CHANGEABLE, Conv1D))]
    return _fitting(layers, patterns, "targets")


def numbered(tokens: Sequence[str], tokenizer: PretrainedTokenizer) -> list[int]:
    """The numbers of tokens, in their order, each once. JobError GTJ0102 for what is not one token of the tokenizer."""
    found: dict[int, str] = {}
    for text in tokens:
        number = tokenizer.inner.token_to_id(text)
        ids = [number] if number is not None else tokenizer.encode(text)
        if len(ids) != 1 or ids[0] in found:
            why = f"it is the same as {found[ids[0]]!r}" if len(ids) == 1 else ""
            if len(ids) > 1:
                several = ", ".join(repr(tokenizer.inner.id_to_token(one)) for one in ids[:4])
                why = f"it is {len(ids)} tokens: {several}{' ...' if len(ids) > 4 else ''}"
            how = "name tokens as tokenizer.json has them; new ones are added beforehand, to the tokenizer and the model together"
            what = f"{text!r} is no {'other' if len(ids) == 1 else 'single'} token of the base's tokenizer"
            raise JobError("GTJ0102", what, where="language.adapter.trainTokens", why=why or "it encodes to nothing", how=how)
        found[ids[0]] = text
    return list(found)


def saved(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    layers = [name for name, layer in model.named_modules() if name and next(layer.parameters(recurse=False), None) is not None]
    return _fitting(layers, patterns, "modulesToSave") if patterns else []


def names(model: nn.Module) -> str:
    """The names of a model's layers, those of its blocks once: "lm_head, model.layers.*.self_attn.q_proj"."""
    from transformers.pytorch_utils import Conv1D

    layers = [name for name, layer in model.named_modules() if isinstance(layer, (*CHANGEABLE, Conv1D))]
    return ", ".join(dict.fromkeys(".".join("*" if part.isdigit() else part for part in name.split(".")) for name in layers))


def tied(model: nn.Module, adapter: Adapter) -> bool:
    """Whether it changes one of two layers that share their weights, so that both cannot be merged into one."""
    first, last = model.get_input_embeddings(), model.get_output_embeddings()  # type: ignore[operator]
    if last is None or first.weight is not last.weight:
        return False
    shared = [name for name, layer in model.named_modules() if layer is first or layer is last]
    chosen = targeted(model, adapter.targets) if adapter.type in ("lora", "dora") else ""
    return any(name in chosen for name in shared) or any(name in saved(model, adapter.modules_to_save) for name in shared)


def begin(model: nn.Module, adapter: Adapter, tokenizer: PretrainedTokenizer) -> None:
    """The first embeddings of a prompt: those of tokens that are drawn, or of a text, repeated or cut."""
    trained: Any = model.prompt_encoder["default"].embedding.weight  # type: ignore[index, union-attr]
    if adapter.init == "random":
        return
    if adapter.init == "text":
        ids = tokenizer.inner.encode(adapter.init_text, add_special_tokens=False).ids or [tokenizer.end]
        chosen = torch.tensor((ids * (-(-len(trained) // len(ids))))[: len(trained)])
    else:
        chosen = torch.randint(tokenizer.vocabulary, (len(trained),))
    words: Any = model.get_base_model().get_input_embeddings().weight  # type: ignore[operator]
    with torch.no_grad():
        trained.copy_(words[chosen])


def _fitting(layers: Sequence[str], patterns: Sequence[str], field: str) -> list[str]:
    chosen: dict[str, None] = {}
    for pattern in patterns:
        found = [name for name in layers if fnmatchcase(name, pattern) or fnmatchcase(name, f"*.{pattern}")]
        if not found:
            there = dict.fromkeys(".".join("*" if part.isdigit() else part for part in name.split(".")) for name in layers)
            how = f"there are {', '.join(there)}; all-linear means the linear ones but the last" if field == "targets" else ""
            what = f"{pattern} is no layer of the base"
            raise JobError("GTJ0102", what, where=f"language.adapter.{field}", how=how or f"there are {', '.join(there)}")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _ia3(model: nn.Module) -> dict[str, Any]:
    from peft.utils import constants

    kind: Any = model.config.model_type  # type: ignore[union-attr]
    every = constants.TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING
    if kind not in every:
        why = f"peft knows those of {', '.join(sorted(every))}"
        raise JobError("GTJ0109", f"ia3 does not know the layers of a {kind}", where="language.adapter.type", why=why, how="take lora")
    inner = constants.TRANSFORMERS_MODELS_TO_IA3_FEEDFORWARD_MODULES_MAPPING.get(kind, [])
    return {"target_modules": list(every[kind]), "feedforward_modules": list(inner)}
