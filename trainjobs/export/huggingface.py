"""Hugging Face's layout: what the files beside `model.safetensors` say. Plain data: neither transformers nor torch is imported.

A model of transformers is made from `configuration`, by us (models/transformers.py) and by whoever loads an export, so both are the same.
The tokenizers are those of data/tokens.py in the `tokenizers` library's JSON: byte-level, with end-of-text behind the last token.
"""

from __future__ import annotations

import json
from typing import Any

from trainjobs.api.language import Transformer
from trainjobs.models.configuration import ARCHITECTURES, configuration

END = "<|endoftext|>"
CLASSIFIERS = {"gpt2": "GPT2ForSequenceClassification", "llama": "LlamaForSequenceClassification"}
LABEL = {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}  # one: the score
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def files(network: Transformer, vocabulary: int, dtype: str, tokenizer: bytes | None, *, reward: bool = False) -> dict[str, bytes]:
    """All files of a language model but its weights, by name. `tokenizer` is the trained one's JSON; None is one token per byte. `reward`:
    of a model of rewards, which writes nothing (scores.py says what of its configuration is its own).

    A GPT-2 has its embedding a second time as its last layer: it is stored once, and tied when it is loaded.
    """
    end = vocabulary - 1
    kind = {"architectures": [ARCHITECTURES[network.architecture]], "model_type": network.architecture, "dtype": DTYPES[dtype]}
    special = {"bos_token": END, "eos_token": END, "unk_token": None, "model_max_length": network.context_length}
    # Of transformers' classes, the one that takes tokenizer.json as it is.
    reader = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    contents = {
        "config.json": {**kind, **configuration(network, vocabulary, end)},
        "generation_config.json": {"bos_token_id": end, "eos_token_id": end},
        "tokenizer.json": with_end(json.loads(tokenizer) if tokenizer else bytewise(), end),
        "tokenizer_config.json": {**reader, **special},
    }
    if reward:
        del contents["generation_config.json"]
        contents["config.json"] |= {"architectures": [CLASSIFIERS[network.architecture]], **LABEL, "pad_token_id": None}
    return {name: text(value) for name, value in contents.items()}


def with_end(tokenizer: dict[str, Any], end: int) -> dict[str, Any]:
    """A tokenizer that knows the end-of-text token: number `end`, which must be the first free one."""
    token = {"id": end, "content": END, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {**tokenizer, "added_tokens": [token]}


def bytewise() -> dict[str, Any]:
    """One token per byte of UTF-8, in the `tokenizers` library's JSON: BPE without merges."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "vocab": {character: byte for byte, character in enumerate(alphabet())}, "merges": []}
    return {"version": "1.0", "added_tokens": [], "pre_tokenizer": level, "decoder": level, "model": model}


def alphabet() -> list[str]:
    """The character that stands for each byte in a byte-level vocabulary: itself where it is printable in Latin-1, else the next free one
    from U+0100 on (Radford et al., 2019)."""
    free = iter(range(256, 512))
    return [chr(byte if 33 <= byte <= 126 or 161 <= byte <= 172 or byte >= 174 else next(free)) for byte in range(256)]


def text(value: object) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
