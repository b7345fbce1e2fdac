"""Small random pipelines of diffusers' and transformers' own classes, as save_pretrained writes them: bases to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

START, END = "<|startoftext|>", "<|endoftext|>"
WORDS = (
    *("a", "the", "of", "in", "photo", "picture", "red", "yellow", "green", "cyan", "blue", "magenta", "circle", "square", "triangle"),
    *("toy", "thing"),
)
LENGTH = 40  # tokens of a prompt


def tokenizer() -> Any:
    """CLIP's own class with a vocabulary by hand: the letters, in the middle and at the end of a word, and a few whole words."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 324))]
    vocabulary = {token: number for number, token in enumerate([*letters, *(f"{letter}</w>" for letter in letters)])}
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            pair = (pieces[0], pieces[1])
            if pair not in merges:
                merges.append(pair)
            pieces = ["".join(pair), *pieces[2:]]
            vocabulary.setdefault(pieces[0], len(vocabulary))
    for token in (START, END):
        vocabulary[token] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=LENGTH)


def encoder(tokens: Any, width: int, *, projected: bool = False, layers: int = 2) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config)


def third_tokenizer() -> Any:
    """T5's own class, whose words are those above and the letters."""
    from transformers import T5TokenizerFast

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(f"\u2581{word}", -3.0) for word in WORDS] + [(chr(code), -8.0) for code in range(33, 127)]
    return T5TokenizerFast(vocab=pieces, extra_ids=0)


def third(tokens: Any, width: int) -> Any:
    """A T5 of one block."""
    from transformers import T5Config, T5EncoderModel

    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokens),
            d_model=width,
            d_kv=8,
            d_ff=2 * width,
            num_layers=1,
            num_heads=2,
            feed_forward_proj="gated-gelu",  # smooth, as T5 1.1 is: at the kink of a ReLU rounding chooses the side
        )
    )


def autoencoder(channels: int = 4, width: int = 8, **more: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(width, width),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        **more,
    )


def unet(told: int, width: int = 16, **more: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        block_out_channels=(width, 2 * width),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=told,
        attention_head_dim=2,
        **more,
    )


def pipeline(kind: str = "sd", *, prediction: str = "epsilon", width: int = 16) -> Any:
    """sd, xl, sd3 or sd3-t5, which has the third text encoder; images of 8 pixels and more, of latents half as large."""
    import diffusers

    torch.manual_seed(7)
    tokens = tokenizer()
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type=prediction,
        clip_sample=False,
        timestep_spacing="trailing",
        steps_offset=1,
    )
    if kind == "sd":
        return diffusers.StableDiffusionPipeline(
            vae=autoencoder(),
            text_encoder=encoder(tokens, 16),
            tokenizer=tokens,
            unet=unet(16, width),
            scheduler=scheduler,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    if kind == "xl":
        network = unet(
            32,
            width,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=16 + 6 * 8,
            use_linear_projection=True,
        )
        return diffusers.StableDiffusionXLPipeline(
            vae=autoencoder(),
            text_encoder=encoder(tokens, 16),
            text_encoder_2=encoder(tokens, 16, projected=True),
            tokenizer=tokens,
            tokenizer_2=tokenizer(),
            unet=network,
            scheduler=scheduler,
        )
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=8,
        patch_size=1,
        in_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pooled_projection_dim=32,
        out_channels=4,
        pos_embed_max_size=16,
    )
    words = third_tokenizer() if kind == "sd3-t5" else None
    return diffusers.StableDiffusion3Pipeline(
        vae=autoencoder(scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=encoder(tokens, 16, projected=True),
        text_encoder_2=encoder(tokens, 16, projected=True),
        text_encoder_3=third(words, 32) if words else None,
        tokenizer=tokens,
        tokenizer_2=tokenizer(),
        tokenizer_3=words,
        transformer=transformer,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def saved(folder: Path, kind: str = "sd", **sizes: Any) -> Path:
    pipeline(kind, **sizes).save_pretrained(folder)
    return folder
