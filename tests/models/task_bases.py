"""Small random models of transformers' own classes that are not causal, each with a tokenizer: BERT, T5, BART, and ViT with GPT-2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

END, BOS, PAD, MASK = "</s>", "<s>", "<pad>", "<mask>"
SPECIAL = (END, BOS, PAD, MASK)  # behind 256 bytes
VOCABULARY = 256 + len(SPECIAL)
NUMBERS = {"eos_token_id": 256, "bos_token_id": 257, "pad_token_id": 258}


def tokenizer(folder: Path, *, bos: bool, sentinels: int = 0) -> None:
    """A token for each byte. Texts end with END, and with `bos` begin with BOS, as BERT's and BART's; T5's only end. The last of T5's
    tokens is its first sentinel."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([*SPECIAL, *(f"<extra_id_{number}>" for number in reversed(range(sentinels)))])
    around = f"{BOS} $A {END}" if bos else f"$A {END}"
    inner.post_processor = processors.TemplateProcessing(single=around, special_tokens=[(END, 256), (BOS, 257)])
    named = {"eos_token": END, "bos_token": BOS, "pad_token": PAD, "mask_token": MASK}
    PreTrainedTokenizerFast(tokenizer_object=inner, **named).save_pretrained(folder)


def model(kind: str, *, width: int = 32, layers: int = 2, dropout: float = 0.0, size: int = 16, sentinels: int = 0) -> Any:
    import transformers

    torch.manual_seed(7)
    if kind == "bert":
        config: Any = transformers.BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            intermediate_size=2 * width,
            max_position_embeddings=64,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            **NUMBERS,
        )
        return transformers.BertForMaskedLM(config)
    if kind == "t5":
        config = transformers.T5Config(
            vocab_size=VOCABULARY + sentinels,
            d_model=width,
            d_kv=width // 4,
            d_ff=2 * width,
            num_layers=layers,
            num_heads=4,
            dropout_rate=dropout,
            feed_forward_proj="gated-gelu",  # smooth, as T5 1.1 is: at the kink of a ReLU rounding chooses the side
            decoder_start_token_id=258,
            eos_token_id=256,
            pad_token_id=258,
        )
        return transformers.T5ForConditionalGeneration(config)
    if kind == "bart":
        sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in (("layers", layers), ("attention_heads", 4))}
        wide = {f"{side}_ffn_dim": 2 * width for side in ("encoder", "decoder")}
        none = dict.fromkeys(("dropout", "attention_dropout", "activation_dropout"), dropout)
        config = transformers.BartConfig(
            vocab_size=VOCABULARY, d_model=width, max_position_embeddings=64, decoder_start_token_id=256, **sides, **wide, **none, **NUMBERS
        )
        config.forced_eos_token_id = None
        return transformers.BartForConditionalGeneration(config)
    seeing = transformers.ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=2 * width,
        image_size=size,
        patch_size=4,
        num_channels=3,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    writing = transformers.GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=width,
        n_layer=layers,
        n_head=4,
        resid_pdrop=dropout,
        embd_pdrop=dropout,
        attn_pdrop=dropout,
        **NUMBERS,
    )
    both = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(seeing, writing)
    both.decoder_start_token_id, both.pad_token_id, both.eos_token_id = 257, 258, 256
    return transformers.VisionEncoderDecoderModel(both)


def base(folder: Path, kind: str, **sizes: Any) -> Path:
    made = model(kind, **sizes)
    made.save_pretrained(folder)
    tokenizer(folder, bos=kind in ("bert", "bart"), sentinels=sizes.get("sentinels", 0))
    if kind == "vit-gpt2":
        (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.4, 0.5, 0.6], "image_std": [0.5, 0.25, 0.5]}))
    return folder
