"""Causal language models: transformers' own GPT-2 and Llama, made from a configuration, with random weights. No hub is asked.

GPT-2: Radford et al., "Language models are unsupervised multitask learners", 2019: learned positions, layer norm before each block,
GELU, tied embeddings, N(0, 0.02) with the residual projections scaled by 1/sqrt(2 * layers). Llama: Touvron et al., "Llama 2", 2023
(arXiv 2307.09288): rotary positions, RMS norm, SwiGLU of 8/3 the width, untied embeddings, N(0, 0.02).

transformers is imported inside the functions: it takes seconds.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from trainjobs.api.language import Transformer
from trainjobs.models.attention import register
from trainjobs.models.configuration import configuration


def causal_language_model(network: Transformer, vocabulary: int, end_of_text: int) -> nn.Module:
    """A model called as `model(input_ids=int64 [B, T]).logits`: float [B, T, vocabulary]. T is at most `network.context_length`."""
    return _gpt2(network, vocabulary, end_of_text) if network.architecture == "gpt2" else _llama(network, vocabulary, end_of_text)


def _gpt2(network: Transformer, vocabulary: int, end_of_text: int) -> nn.Module:
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    config: Any = GPT2Config(**configuration(network, vocabulary, end_of_text), use_cache=False, attn_implementation=register())
    model: nn.Module = GPT2LMHeadModel(config)
    return model


def _llama(network: Transformer, vocabulary: int, end_of_text: int) -> nn.Module:
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    config: Any = LlamaConfig(**configuration(network, vocabulary, end_of_text), use_cache=False, attn_implementation=register())
    model: nn.Module = LlamaForCausalLM(config)
    return model
