"""Tiny bases for the campaign, written without transformers, which is slow to import: a folder, and a hub that is all on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

WIDTH, POSITIONS, END = 8, 32, "<|end|>"
CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 257,
    "n_positions": POSITIONS,
    "n_embd": WIDTH,
    "n_layer": 2,
    "n_head": 2,
    **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
    "eos_token_id": 256,
}


def model(folder: Path, seed: int = 0) -> Path:
    """A GPT-2 of two blocks with random weights, of which one seed differs from another's; its tokenizer has one token per byte."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    numbers, wide = np.random.default_rng(seed), {"attn.c_attn": (WIDTH, 3 * WIDTH), "attn.c_proj": (WIDTH, WIDTH)}
    wide |= {"mlp.c_fc": (WIDTH, 4 * WIDTH), "mlp.c_proj": (4 * WIDTH, WIDTH)}
    tensors = {"wte.weight": (257, WIDTH), "wpe.weight": (POSITIONS, WIDTH)}
    for block in (0, 1):
        tensors |= {f"h.{block}.{name}.weight": shape for name, shape in wide.items()}
        tensors |= {f"h.{block}.{name}.bias": shape[1:] for name, shape in wide.items()}
        tensors |= {f"h.{block}.ln_{number}.{part}": (WIDTH,) for number in (1, 2) for part in ("weight", "bias")}
    tensors |= {"ln_f.weight": (WIDTH,), "ln_f.bias": (WIDTH,)}
    values = {f"transformer.{name}": numbers.normal(0, 0.1, shape).astype("f4") for name, shape in tensors.items()}
    save_file(values, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    (folder / "tokenizer.json").write_bytes(tokenizer())
    return folder


def classifier(folder: Path, seed: int = 0) -> Path:
    """The same with a score: a model of rewards."""
    from safetensors.numpy import load_file, save_file

    model(folder, seed)
    score = np.random.default_rng(seed).normal(0, 1, (1, WIDTH)).astype("f4")
    save_file({**load_file(folder / "model.safetensors"), "score.weight": score}, folder / "model.safetensors", metadata={"format": "pt"})
    told = {"architectures": ["GPT2ForSequenceClassification"], "id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}
    (folder / "config.json").write_text(json.dumps({**CONFIG, **told}))
    return folder


def tokenizer() -> bytes:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens([END])
    return inner.to_str().encode()


WORDS = ("<pad>", "<mask>", *(f"<extra_id_{number}>" for number in range(11, -1, -1)))  # T5's sentinels from the last token down
TASK = {
    "masked": {
        "architectures": ["BertForMaskedLM"],
        "model_type": "bert",
        "hidden_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": WIDTH,
        "max_position_embeddings": POSITIONS,
        "vocab_size": 280,
        "pad_token_id": 257,
    },
    "seq2seq": {
        "architectures": ["T5ForConditionalGeneration"],
        "model_type": "t5",
        "d_model": WIDTH,
        "d_kv": WIDTH // 2,
        "d_ff": WIDTH,
        "num_layers": 1,
        "num_heads": 2,
        "vocab_size": 280,
        "pad_token_id": 257,
        "eos_token_id": 256,
        "decoder_start_token_id": 257,
    },
}


def of_task(task: str, folder: Path) -> Path:
    """A BERT or a T5 of one block, by transformers, with the same tokenizer and a mask."""
    import torch
    from transformers import CONFIG_MAPPING, BertForMaskedLM, T5ForConditionalGeneration

    torch.manual_seed(0)
    made = {"masked": BertForMaskedLM, "seq2seq": T5ForConditionalGeneration}[task]
    config = CONFIG_MAPPING[TASK[task]["model_type"]](**{key: value for key, value in TASK[task].items() if key != "model_type"})
    made(config).save_pretrained(folder)
    told = json.loads(tokenizer())
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    told["added_tokens"] += [{"id": 257 + number, "content": word, **special} for number, word in enumerate(WORDS)]
    (folder / "tokenizer.json").write_text(json.dumps(told))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END, "pad_token": "<pad>", "mask_token": "<mask>"}))
    return folder


def hub(folder: Path, name: str = "org/small") -> Path:
    """The hub's own cache with two revisions of a model, v1 and v2, as its client keeps them."""
    root = folder / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    for number in (1, 2):
        commit = str(number) * 40
        (root / "refs" / f"v{number}").write_text(commit)
        model(root / "snapshots" / commit, seed=number)
    return folder


def offline(cache: Path) -> None:
    """Let this process read the hub from its cache alone."""
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE, constants.HF_HUB_CACHE = True, str(cache)
