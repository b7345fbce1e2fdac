"""A language model, as users write it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model


class Transformer(Model):
    architecture: Literal["gpt2", "llama"] = Field(
        "gpt2", description="Configuration of Hugging Face transformers the network is made from, with random weights."
    )
    layers: Annotated[int, Field(ge=1, le=256)] = Field(4, description="Transformer blocks.")
    hidden: Annotated[int, Field(ge=8, le=65536)] = Field(128, description="Width of the residual stream.")
    heads: Annotated[int, Field(ge=1, le=256)] = Field(4, description="Attention heads; divides hidden.")
    context_length: Annotated[int, Field(ge=2, le=1048576)] = Field(128, description="Tokens of a training sequence.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout probability (gpt2 only).")


class Tokenizer(Model):
    type: Literal["byte", "bpe"] = Field("byte", description="byte: one token per byte; bpe: byte-pair encoding trained on the data.")
    vocabulary_size: Annotated[int, Field(ge=258, le=1048576)] = Field(1024, description="Size of the vocabulary (bpe only).")


class Language(Model):
    """A causal language model: engine `model`."""

    network: Transformer = Transformer()
    tokenizer: Tokenizer = Tokenizer()
