"""The arguments of transformers' configurations, one place for us (transformers.py) and for whoever loads an export. Plain data."""

from __future__ import annotations

from typing import Any

from trainjobs.api.language import Transformer

ARCHITECTURES = {"gpt2": "GPT2LMHeadModel", "llama": "LlamaForCausalLM"}


EMBEDDING = {"gpt2": "transformer.wte.weight", "llama": "model.embed_tokens.weight"}  # its first dimension is the vocabulary


def configuration(network: Transformer, vocabulary: int, end_of_text: int) -> dict[str, Any]:
    """The arguments of GPT2Config or LlamaConfig that make the network."""
    tokens = {"vocab_size": vocabulary, "bos_token_id": end_of_text, "eos_token_id": end_of_text}
    if network.architecture == "gpt2":
        return {
            **tokens,
            "n_positions": network.context_length,
            "n_embd": network.hidden,
            "n_layer": network.layers,
            "n_head": network.heads,
            "resid_pdrop": network.dropout,
            "embd_pdrop": network.dropout,
            "attn_pdrop": network.dropout,
        }
    return {
        **tokens,
        "max_position_embeddings": network.context_length,
        "hidden_size": network.hidden,
        "intermediate_size": feed_forward(network.hidden),
        "num_hidden_layers": network.layers,
        "num_attention_heads": network.heads,
        "num_key_value_heads": network.heads,
        "tie_word_embeddings": False,
    }


def feed_forward(hidden: int) -> int:
    """8/3 of the width, rounded up to a multiple of 64: SwiGLU's three matrices then cost what two of 4 times the width do."""
    return -(-8 * hidden // 3 // 64) * 64
