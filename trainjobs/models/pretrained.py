"""Trained language models: any class of transformers that its AutoModelForCausalLM, ...ForMaskedLM or ...ForSeq2SeqLM knows, and its
VisionEncoderDecoderModel, from safetensors alone.

Code that lies beside the weights is never run: a model whose class transformers does not have cannot be used.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.api.language import Task
from trainjobs.data.pretrained import CONFIG, Pretrained, unusable
from trainjobs.models.attention import register
from trainjobs.models.loading import ALONE

Kind = Task | Literal["reward"]
KINDS: Mapping[Kind, str] = {
    "causal": "causal language model",
    "masked": "masked language model",
    "seq2seq": "sequence-to-sequence model",
    "caption": "vision encoder with a language decoder",
    "reward": "model for sequence classification",
}


def classes(task: Kind) -> Any:
    """By configuration, transformers' classes of a task."""
    import transformers

    if task == "caption":
        return {transformers.VisionEncoderDecoderConfig: transformers.VisionEncoderDecoderModel}
    named = {"causal": "CAUSAL_LM", "masked": "MASKED_LM", "seq2seq": "SEQ_TO_SEQ_CAUSAL_LM", "reward": "SEQUENCE_CLASSIFICATION"}[task]
    return getattr(transformers, f"MODEL_FOR_{named}_MAPPING")


def configured(base: Pretrained, task: Kind = "causal") -> tuple[Any, type[Any]]:
    """The configuration of a base, and its class. JobError GTJ0109 for what is no model of transformers for the task."""
    from transformers import CONFIG_MAPPING

    told, where = base.json(CONFIG), f"{base.uri}/{CONFIG}"
    kind, named = told.get("model_type"), (told.get("architectures") or [None])[0]
    if kind not in CONFIG_MAPPING:
        code = "; it would come from code beside the weights (auto_map), which is never run" if told.get("auto_map") else ""
        why = f"transformers has no model_type {kind!r}{code}"
        raise unusable("the base is of an unknown class", where, why, "take a model of transformers, or a newer transformers")
    config: Any = CONFIG_MAPPING[kind].from_dict(told)
    ours = classes(task).get(type(config), None)
    known = ours if isinstance(ours, (tuple, list)) else (ours,) if ours else ()
    chosen = next((one for one in known if named in (None, one.__name__)), None)
    if chosen is None:
        why = f"it is a {named or kind}, and a {KINDS[task]} of that kind is a {known[0].__name__ if known else 'thing unknown'}"
        how = f"take a model that was saved as a {KINDS[task]}{other(type(config), str(named))}"
        raise unusable("the base is of another class", where, why, how)
    return config, chosen


def other(config: type[Any], named: str) -> str:
    """What else could be done with a model of this class, in words."""
    for task, words in KINDS.items():
        found = classes(task).get(config, ())
        if task != "reward" and named in [one.__name__ for one in (found if isinstance(found, (tuple, list)) else (found,))]:
            return f", or set language.task to {task}: it is a {words}"
    return ""


def load(base: Pretrained, *, half: bool, context: int, mask: bool = False, task: Kind = "causal") -> nn.Module:
    """The base, called as `model(input_ids=int64 [B, T]).logits`: float [B, T, rows of the embedding]. `half`: in bfloat16, for what is
    not trained. `context` tokens must fit into its positions. `mask`: its attention makes masks, as keys before the text need them.

    JobError GTJ0109 when it cannot be used, GTJ0108 when the context is too long for it.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    config, kind = configured(base, task)
    positions = getattr(config.get_text_config(decoder=True), "max_position_embeddings", None)
    if isinstance(positions, int) and context > positions:
        why = f"it has {positions:,} positions, and {context:,} are needed"
        how = "lower language.network.contextLength" + (" or adapter.virtualTokens" if mask else "")
        raise JobError("GTJ0108", "the context is longer than the base's", where="language.network.contextLength", why=why, how=how)
    attention = attend(config) if not mask and task in ("causal", "reward") else None
    try:
        with ALONE:
            model, told = kind.from_pretrained(
                str(base.folder),
                config=config,
                dtype=torch.bfloat16 if half else torch.float32,
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise unusable(
            "the base cannot be loaded", base.uri, f"{type(error).__name__}: {error}", "save it again with transformers"
        ) from error
    if missing := sorted(told["missing_keys"]):
        why = f"{', '.join(missing[:3])}{f' and {len(missing) - 3} more' if len(missing) > 3 else ''} of {kind.__name__} are not there"
        raise unusable("the base has not all weights", base.uri, why, f"copy all files, or take a model that was saved as a {KINDS[task]}")
    if task != "masked":
        model.config.use_cache = False
    loaded: nn.Module = model.train()
    return loaded


def attend(config: Any) -> str | None:
    """The attention of models whose every layer sees all that stands before, without a mask (models/attention.py); None, transformers'
    own choice, of others: those with a window, or whose positions are in the mask."""
    text = config.get_text_config()
    if text.model_type not in PLAIN or (getattr(text, "sliding_window", None) is not None and getattr(text, "use_sliding_window", True)):
        return None
    return register()


PLAIN = ("gpt2", "llama", "qwen2", "qwen3", "mistral", "phi", "phi3", "gemma", "olmo", "olmo2", "smollm3", "gpt_neox", "granite")
