"""A language model, as users write it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.alignment import Distill, Dpo, Grpo, Ppo, Rewarded, RewardModel
from trainjobs.api.fields import Model
from trainjobs.api.only import only
from trainjobs.api.pretrained import Adapter, Base, Unfreezing
from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule

Task = Literal["causal", "masked", "seq2seq", "caption"]
TEMPLATES = ("chatml", "llama3", "gemma", "mistral", "zephyr")  # chat templates that are known by name


class Transformer(Model):
    """The network, built from its configuration."""

    architecture: Literal["gpt2", "llama"] = Field(
        "gpt2", description="Configuration of Hugging Face transformers the network is made from, with random weights."
    )
    layers: Annotated[int, Field(ge=1, le=256)] = Field(4, description="Transformer blocks.")
    hidden: Annotated[int, Field(ge=8, le=65536)] = Field(128, description="Width of the residual stream.")
    heads: Annotated[int, Field(ge=1, le=256)] = Field(4, description="Attention heads; divides hidden.")
    context_length: Annotated[int, Field(ge=2, le=1048576)] = Field(128, description="Tokens of a training sequence.")
    dropout: Annotated[float, Field(ge=0, lt=1), only(architecture="gpt2")] = Field(0.0, description="Dropout probability.")


class Tokenizer(Model):
    """How text becomes tokens."""

    type: Literal["byte", "bpe"] = Field("byte", description="byte: one token per byte; bpe: byte-pair encoding trained on the data.")
    vocabulary_size: Annotated[int, Field(ge=258, le=1048576), only(type="bpe")] = Field(1024, description="Size of the vocabulary.")


class LanguageLoss(Model):
    """What is learned of the data, and how the cross-entropy is computed."""

    tokens: Literal["auto", "all", "completion", "assistant"] = Field(
        "auto",
        description="Tokens that are learned. auto: all of a text, the completion behind a prompt, every answer of a conversation; all: "
        "prompts and what users say as well; completion: the last answer; assistant: every answer (TRL: completion_only_loss, "
        "assistant_only_loss; axolotl: train_on_inputs).",
    )
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Share of a label that is spread over the vocabulary (transformers: label_smoothing_factor)."
    )
    chunk: Annotated[int, Field(ge=1, le=1048576)] | None = Field(
        None,
        description="Tokens whose logits exist at a time: less memory where the vocabulary is large, and tokens that are not learned cost "
        "nothing; default: all at once (TRL: use_liger_kernel).",
    )


class Masking(Model):
    """Which tokens a masked model is asked for (Devlin et al., 2019)."""

    share: Annotated[float, Field(ge=0.01, le=0.9)] = Field(
        0.15, description="Share of the tokens that are predicted, of those that stand for text (transformers: mlm_probability)."
    )
    replaced: Annotated[float, Field(ge=0, le=1)] = Field(
        0.8, description="Share of them in whose place the mask stands (transformers: mask_replace_prob)."
    )
    random: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1, description="Share in whose place any token stands; the others stay (transformers: random_replace_prob)."
    )


class SpanCorruption(Model):
    """Spans of a text that are hidden behind sentinels, and written (Raffel et al., 2020)."""

    noise_density: Annotated[float, Field(ge=0.01, le=0.9)] = Field(
        0.15, description="Share of the tokens that are hidden (T5: noise_density; transformers: mlm_probability)."
    )
    mean_noise_span_length: Annotated[float, Field(ge=1, le=1000)] = Field(
        3.0, description="Tokens of a span that is hidden, in the mean (T5: mean_noise_span_length)."
    )


class Language(Model):
    """A language model: engine `model`."""

    task: Task = Field(
        "causal",
        description="causal: each token from those before it; masked: tokens that are hidden, from all around them (BERT); seq2seq: a text "
        "from another (T5, BART); caption: a text from a picture. All but causal go on from a base of that kind.",
    )
    masking: Annotated[Masking, only(task="masked")] = Masking()
    span_corruption: Annotated[SpanCorruption | None, only(task="seq2seq")] = Field(
        None,
        description="Learn from plain text by span corruption, as T5 was pretrained, not from pairs. Needs a base whose tokenizer has "
        "sentinels: <extra_id_0> and so on.",
    )
    network: Transformer = Transformer()
    tokenizer: Tokenizer = Tokenizer()
    base: Base | None = Field(None, description="A trained model to go on from, instead of network.")
    template: Annotated[Annotated[str, Field(min_length=1, max_length=1024)] | None, only(task="causal")] = Field(
        None,
        description=f"How conversations are written for the base, instead of by its own chat template: {listed(TEMPLATES)}; or a file of "
        "jinja (file://, s3://, gs://, az://). What ends an answer there is the end of text. Default: the base's own (TRL: "
        "chat_template_path; axolotl: chat_template; LLaMA-Factory: template).",
    )
    adapter: Adapter | None = Field(None, description="Train small parts beside the base, and leave the base as it is.")
    unfreezing: Annotated[Unfreezing | None, only(method="sft"), only(task=("causal", "masked"))] = Field(
        None, description="Train the base from its last block down, one block more at a time."
    )
    method: Annotated[Literal["sft", "reward", "dpo", "grpo", "ppo", "distill"], only(task="causal")] = Field(
        "sft",
        description="sft: the next token of text, of completions or of answers; reward: a model of rewards from preferences; dpo: "
        "preferences directly; grpo: reinforcement by rewards, of which a prompt's completions are compared; ppo: the same, compared with "
        "what a value head expects; distill: what a teacher says.",
    )
    loss: Annotated[LanguageLoss, only(method=("sft", "distill"))] = LanguageLoss()
    packing: Annotated[Literal["auto", "bfd", "wrapped", "none"], only(method=("sft", "distill")), only(task="causal")] = Field(
        "auto",
        description="How documents become sequences of contextLength. bfd: whole ones, several to a sequence; wrapped: cut where a "
        "sequence is full; none: one to a sequence. Attention sees one document at a time. auto: bfd, and plain text as one stream whose "
        "attention crosses documents (TRL: packing, packing_strategy; axolotl: sample_packing; LLaMA-Factory: packing, neat_packing).",
    )
    attention: Annotated[Literal["auto", "sdpa", "flex", "varlen"], only(method="sft"), only(task="causal")] = Field(
        "auto",
        description="Of rows that hold several documents. sdpa: scaled dot-product attention with a mask of the documents; flex: "
        "FlexAttention, which passes over blocks that no document sees; varlen: a kernel of sequences of unequal length, in half "
        "precision; both need a GPU. auto: flex on a GPU where it works, else sdpa; the run says which [attn_implementation].",
    )
    dpo: Annotated[Dpo, only(method="dpo")] = Dpo()
    reward: Annotated[RewardModel, only(method="reward")] = RewardModel()
    grpo: Annotated[Grpo, only(method="grpo")] = Grpo()
    ppo: Annotated[Ppo, only(method="ppo")] = Ppo()
    distill: Annotated[Distill, only(method="distill")] = Distill()

    @property
    def rewarded(self) -> Rewarded | None:
        """What the method has of completions that are drawn within a step, where it learns from such."""
        rewarded: dict[str, Rewarded] = {"grpo": self.grpo, "ppo": self.ppo}
        return rewarded.get(self.method)

    @property
    def completions(self) -> int:
        """Of each prompt, one after the other in the stream of data."""
        return self.grpo.generations if self.method == "grpo" else 1


def heads_divide_hidden(network: Transformer) -> Iterator[Breach]:
    step = 2 if network.architecture == "llama" else 1
    legal = [heads for heads in range(1, network.hidden + 1) if network.hidden % heads == 0 and network.hidden // heads % step == 0]
    if network.heads not in legal:
        near = sorted(sorted(legal, key=lambda heads: abs(heads - network.heads))[:3])
        why = "every head takes an equal share" + (", and rotary positions need an even one" if step == 2 else "")
        what = f"hidden {network.hidden} does not divide into {network.heads} heads"
        yield Breach(("heads",), what, why, f"nearest numbers that do: {listed(near)}" if near else "use an even hidden")


RULES = (
    Rule(
        "spec.language.network",
        "GTJ0108",
        heads_divide_hidden,
        "self.hidden % self.heads == 0 && (self.architecture != 'llama' || self.hidden / self.heads % 2 == 0)",
        "hidden does not divide into that many heads (for llama: of even width)",
    ),
)
