"""A diffusion pipeline that somebody else has trained, and what is trained of it, as users write them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import Model
from trainjobs.api.only import only
from trainjobs.api.pretrained import Base, ModelUri, Pattern

Prompt = Annotated[str, Field(min_length=1, max_length=512)]
ATTENTION = ["to_k", "to_q", "to_v", "to_out.0"]


class Pipeline(Base):
    """A trained pipeline of diffusers: Stable Diffusion, Stable Diffusion XL or Stable Diffusion 3. Only safetensors are read, and no code
    that lies beside them. What it predicts, its noise schedule and the scale of its latents are its own."""

    source: ModelUri = Field(
        description="Folder as diffusers' save_pretrained writes it (file://, s3://, gs://, az://), or hf://organisation/name of the hub "
        "[pretrained_model_name_or_path]."
    )


class Lora(Model):
    """Low-rank changes of layers, W + (alpha / rank) B A (Hu et al., 2021); A begins as N(0, 1 / rank), B as 0."""

    rank: Annotated[int, Field(ge=1, le=4096)] = Field(4, description="Rank of the change [rank, network_dim].")
    alpha: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        None, description="The change is multiplied by alpha / rank; default: the rank [lora_alpha, network_alpha]."
    )
    dropout: Annotated[float, Field(ge=0, le=0.99)] = Field(0.0, description="Dropout of what goes into the change [lora_dropout].")
    target_modules: Annotated[list[Pattern], Field(min_length=1, max_length=64)] = Field(
        ATTENTION,
        description="Layers of the denoiser that are changed: names and patterns of names, such as to_q or mid_block.*.to_v. Of a text "
        "encoder always the projections of its attention [target_modules].",
    )
    use_dora: bool = Field(False, description="Trained lengths beside the changes (Liu et al., 2024) [use_dora].")


class TextualInversion(Model):
    """New words: trained rows of the text encoders' embeddings; everything else stays as it is (Gal et al., 2023)."""

    placeholder: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^\S+$")] = Field(
        description="The new word, as prompts write it, such as <cat-toy>; no token of the pipeline [placeholder_token]."
    )
    initializer: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^\S+$")] = Field(
        description="The word that it begins as, one token of the pipeline [initializer_token]."
    )
    vectors: Annotated[int, Field(ge=1, le=64)] = Field(1, description="Rows for the word, all of them in each prompt [num_vectors].")
    property: Literal["object", "style"] = Field(
        "object", description="What the pictures have in common, and so the prompts they are trained with [learnable_property]."
    )


class DreamBooth(Model):
    """A few pictures of one thing, beside pictures of its class that the pipeline draws itself before it is trained, so that it keeps them
    (Ruiz et al., 2023). A batch has as many of the class as of the thing."""

    instance_prompt: Prompt = Field(description="What all pictures are of, with a rare word: a photo of sks dog [instance_prompt].")
    class_prompt: Prompt = Field(description="What the thing is one of: a photo of a dog [class_prompt].")
    class_images: Annotated[int, Field(ge=1, le=10000)] = Field(100, description="Pictures of the class [num_class_images].")
    prior_loss_weight: Annotated[float, Field(ge=0, le=100)] = Field(
        1.0, description="Weight of the loss of pictures of the class; with 0 none are drawn [prior_loss_weight]."
    )


class Adapt(Model):
    """What is trained of a pretrained pipeline."""

    type: Literal["full", "lora", "textual-inversion"] = Field(
        "full",
        description="full: all weights of the denoiser; lora: low-rank changes of its layers; textual-inversion: a new word.",
    )
    text_encoder: Annotated[bool, only(type=("full", "lora"))] = Field(
        False, description="The text encoders are trained along, in the same way [train_text_encoder]."
    )
    lora: Annotated[Lora, only(type="lora")] = Lora()
    dreambooth: Annotated[DreamBooth | None, only(type=("full", "lora"))] = Field(
        None, description="Learn one thing of a few pictures that have no captions, and keep what is known of its class."
    )
    textual_inversion: Annotated[TextualInversion | None, only(type="textual-inversion")] = Field(
        None, description="The new word, of pictures that have no captions."
    )

    @property
    def captioned(self) -> bool:
        """Whether each picture is trained with its own caption."""
        return self.dreambooth is None and self.textual_inversion is None
