"""Small random models of transformers' own classes with a tokenizer, as save_pretrained writes them: bases to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

END, BOS, PAD = "<|end|>", "<s>", "<pad>"
VOCABULARY = 259  # 256 bytes and three special tokens


def tokenizer(folder: Path, *, bos: bool = False) -> Any:
    """One token per byte, and special ones behind; with `bos` the tokenizer puts one before every text, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([END, BOS, PAD])
    if bos:
        inner.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, inner.token_to_id(BOS))])
    made = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token=END, pad_token=PAD, **({"bos_token": BOS} if bos else {}))
    made.save_pretrained(folder)
    return made


def model(kind: str, *, layers: int = 2, width: int = 32, tied: bool = False, positions: int = 128) -> Any:
    import transformers

    common: dict[str, Any] = {"vocab_size": VOCABULARY, "eos_token_id": 256, "bos_token_id": 257, "tie_word_embeddings": tied}
    torch.manual_seed(7)
    if kind == "gpt2":
        config: Any = transformers.GPT2Config(
            **common, n_positions=positions, n_embd=width, n_layer=layers, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0
        )
        return transformers.GPT2LMHeadModel(config)
    sizes = {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "max_position_embeddings": positions,
    }
    if kind == "gpt_neox":
        return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**common, **sizes))
    sizes["num_key_value_heads"] = 2
    name = {"llama": "Llama", "qwen2": "Qwen2", "mistral": "Mistral", "gemma2": "Gemma2"}[kind]
    more = {"head_dim": width // 4, "sliding_window": 8} if kind == "gemma2" else {}
    config = getattr(transformers, f"{name}Config")(**common, **sizes, **more)
    return getattr(transformers, f"{name}ForCausalLM")(config)


def base(folder: Path, kind: str = "gpt2", *, bos: bool = False, **sizes: Any) -> Path:
    made = model(kind, **sizes)
    made.generation_config.eos_token_id = 256
    made.save_pretrained(folder)
    tokenizer(folder, bos=bos)
    return folder
