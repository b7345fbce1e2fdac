"""A model that somebody else has trained, and small parts that are trained beside it, as users write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model, PositiveInt
from trainjobs.api.only import only
from trainjobs.api.training import Optimizer

ModelUri = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^(file://|s3://|gs://|az://|hf://).+$")]
Pattern = Annotated[
    str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.*?-]+$")
]  # of the names of layers: v_proj, h.*.mlp.c_fc
HUB = r"^hf://[^/@]+/[^/@]+/?$"

LOW_RANK = ("lora", "dora")
VIRTUAL = ("prompt", "pTuning", "prefix")
ALL_LINEAR = "all-linear"


class Base(Model):
    """A trained model of transformers' causal classes, with its tokenizer. Only safetensors are read, and no code that lies beside them."""

    source: ModelUri = Field(
        description="Folder as transformers' save_pretrained writes it (file://, s3://, gs://, az://), or hf://organisation/name of the "
        "hub (TRL, LLaMA-Factory: model_name_or_path; axolotl: base_model)."
    )
    revision: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_./-]+$")] | None = Field(
        None,
        description="Branch, tag or commit of a model of the hub; default: its main branch. A run stays with the commit it began with.",
    )


class Unfreezing(Model):
    """Gradual unfreezing (Howard and Ruder, 2018): the base trains from its last block down, one block more at a time."""

    every: PositiveInt = Field(description="Steps after which the next lower block begins to train, with an optimizer that is new.")
    rate_decay: Annotated[float, Field(ge=1, le=100)] = Field(
        2.6, description="The learning rate of a block is that of the block above it, divided by this."
    )

    def slowed(self, optimizer: Optimizer, depth: int) -> Optimizer:
        """The optimizer of the block so many blocks below the last."""
        return optimizer.model_copy(update={"learning_rate": optimizer.learning_rate / self.rate_decay**depth})


class Adapter(Model):
    """Small trained parts of a base that stays as it is."""

    type: Literal["lora", "dora", "ia3", "prompt", "pTuning", "prefix", "bottleneck"] = Field(
        "lora",
        description="lora: low-rank changes of layers; dora: the same with trained lengths; ia3: trained factors of keys, values and "
        "feed-forward layers; prompt: trained embeddings before the text; pTuning: the same through a small network; prefix: trained keys "
        "and values in every layer; bottleneck: small layers behind attention and feed-forward layers.",
    )
    rank: Annotated[int, Field(ge=1, le=4096), only(type=LOW_RANK)] = Field(
        16, description="Rank of the change (peft, axolotl: r, lora_r; LLaMA-Factory: lora_rank)."
    )
    alpha: Annotated[float, Field(gt=0, le=1e6), only(type=LOW_RANK)] = Field(
        32.0, description="The change is multiplied by alpha / rank (lora_alpha)."
    )
    dropout: Annotated[float, Field(ge=0, lt=1), only(type=LOW_RANK)] = Field(
        0.05, description="Dropout of what goes into the change; none with dpo, grpo and ppo (lora_dropout)."
    )
    rank_stabilized: Annotated[bool, only(type=LOW_RANK)] = Field(
        False, description="Multiply by alpha / sqrt(rank) instead (peft: use_rslora)."
    )
    targets: Annotated[list[Pattern], Field(min_length=1, max_length=64), only(type=LOW_RANK)] = Field(
        [ALL_LINEAR],
        description="Layers that are changed: all-linear, or names and patterns of names, such as q_proj or layers.0.*.v_proj. The last "
        "layer, from which the logits come, belongs to all-linear not (lora_target_modules, lora_target).",
    )
    modules_to_save: Annotated[list[Pattern], Field(max_length=64), only(type=(*LOW_RANK, "ia3"))] = Field(
        [], description="Layers that are trained whole beside the adapter, by name (modules_to_save; LLaMA-Factory: additional_target)."
    )
    train_tokens: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=256), only(type=LOW_RANK)] = Field(
        [],
        description="Tokens of the base's tokenizer whose embeddings are trained beside the adapter: special ones by their name, others as "
        "text that is one token (peft: trainable_token_indices). Where the last layer is the embedding, it writes them so, too.",
    )
    virtual_tokens: Annotated[int, Field(ge=1, le=4096), only(type=VIRTUAL)] = Field(
        20, description="Trained positions before the text (peft: num_virtual_tokens)."
    )
    init: Annotated[Literal["vocabulary", "random", "text"], only(type="prompt")] = Field(
        "vocabulary",
        description="What the trained embeddings begin as: those of tokens drawn from the vocabulary, N(0, 1), or those of initText "
        "(peft: prompt_tuning_init).",
    )
    init_text: Annotated[str, Field(max_length=4096), only(init="text")] = Field(
        "", description="Text whose embeddings they begin as, repeated or cut to virtualTokens (peft: prompt_tuning_init_text)."
    )
    reduction: Annotated[int, Field(ge=1, le=4096), only(type="bottleneck")] = Field(
        16, description="The model's width over the bottleneck's (adapters: reduction_factor)."
    )

    @property
    def shifts(self) -> int:
        """Positions that the adapter takes of the base's."""
        return self.virtual_tokens if self.type in VIRTUAL else 0
