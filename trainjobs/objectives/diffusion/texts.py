"""Prompts of a pipeline as its text encoders take them, and the prompts that a new word or a thing is trained with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainjobs.api.diffusion_pretrained import Adapt
from trainjobs.api.errors import JobError
from trainjobs.data.captions import NOTHING

# What textual inversion is trained with, {} being the new word: what CLIP's authors asked it for (Gal et al., 2023, appendix).
OBJECT = (
    *("a photo of a {}", "a rendering of a {}", "a cropped photo of the {}", "the photo of a {}", "a photo of a clean {}"),
    *("a photo of a dirty {}", "a dark photo of the {}", "a photo of my {}", "a photo of the cool {}", "a close-up photo of a {}"),
    *("a bright photo of the {}", "a cropped photo of a {}", "a photo of the {}", "a good photo of the {}", "a photo of one {}"),
    *("a close-up photo of the {}", "a rendition of the {}", "a photo of the clean {}", "a rendition of a {}", "a photo of a nice {}"),
    *("a good photo of a {}", "a photo of the nice {}", "a photo of the small {}", "a photo of the weird {}", "a photo of the large {}"),
    *("a photo of a cool {}", "a photo of a small {}"),
)
STYLE = (
    *("a painting in the style of {}", "a rendering in the style of {}", "a cropped painting in the style of {}"),
    *("the painting in the style of {}", "a clean painting in the style of {}", "a dirty painting in the style of {}"),
    *("a dark painting in the style of {}", "a picture in the style of {}", "a cool painting in the style of {}"),
    *("a close-up painting in the style of {}", "a bright painting in the style of {}", "a good painting in the style of {}"),
    *("a rendition in the style of {}", "a nice painting in the style of {}", "a small painting in the style of {}"),
    *("a weird painting in the style of {}", "a large painting in the style of {}"),
)


@dataclass(frozen=True)
class Texts:
    """`tokenizers` with the new word, if there is one; `word` and the tokens that it stands for in prompts."""

    tokenizers: tuple[Any, ...]
    lengths: tuple[int, ...]
    word: str = ""
    tokens: tuple[str, ...] = ()

    def ids(self, texts: Sequence[str], where: str) -> list[Tensor]:
        """int64 [B, T] for each text encoder, on the CPU. JobError GTJ0113 for texts that are longer than it takes."""
        if self.word:
            texts = [text.replace(self.word, " ".join(self.tokens)) for text in texts]
        found = []
        for tokenizer, length in zip(self.tokenizers, self.lengths, strict=True):
            whole = [len(row) for row in tokenizer(list(texts)).input_ids]
            long = [number for number, count in enumerate(whole) if count > length]
            if long:
                most = max(whole)
                why = f'{len(long)} of {len(texts)} that were read together, up to {most}; the first is "{texts[long[0]][:60]}"'
                raise JobError("GTJ0113", f"texts have more than {length} tokens", where=where, why=why, how="shorten them")
            padded = tokenizer(list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            found.append(padded.input_ids)
        return found


def texts_of(rows: Tensor) -> list[str]:
    """The captions of a batch, int64 [B, length], as text."""
    return [bytes(token for token in row if token < NOTHING).decode(errors="replace") for row in rows.tolist()]


def prompts_of(adapt: Adapt) -> tuple[str, ...]:
    """What pictures without captions are trained with, one of these each."""
    if adapt.dreambooth is not None:
        return (adapt.dreambooth.instance_prompt,)
    if adapt.textual_inversion is not None:
        word = adapt.textual_inversion
        return tuple(template.format(word.placeholder) for template in (OBJECT if word.property == "object" else STYLE))
    return ()


def with_word(tokenizers: Sequence[Any], word: str, initializer: str, vectors: int) -> tuple[tuple[str, ...], list[tuple[int, int]]]:
    """Add a new word to the tokenizers. The tokens that it is in prompts, and for each tokenizer the first of their numbers and the number
    of the initializer's token. JobError GTJ0102."""
    tokens = (word, *(f"{word}_{number}" for number in range(1, vectors)))
    places = []
    for tokenizer in tokenizers:
        if known := [token for token in tokens if token in tokenizer.get_vocab()]:
            why, how = "it has a meaning already, which would be lost", "choose another word, such as <my-thing>"
            raise JobError(
                "GTJ0102", f"{known[0]} is a token of the pipeline", where="diffusion.adapt.textualInversion.placeholder", why=why, how=how
            )
        begins = tokenizer(initializer, add_special_tokens=False).input_ids
        if len(begins) != 1:
            pieces = tokenizer.convert_ids_to_tokens(begins)
            why = f"the tokenizer makes {len(begins)} of it: {', '.join(pieces)}"
            raise JobError(
                "GTJ0102",
                f"{initializer} is not one token",
                where="diffusion.adapt.textualInversion.initializer",
                why=why,
                how="choose a word that is one",
            )
        first = len(tokenizer)
        tokenizer.add_tokens(list(tokens))
        places.append((first, int(begins[0])))
    return tokens, places


def chosen(ids: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, ...]:
    """Of prompts [N, T], those of the rows, int64 [B]."""
    return tuple(torch.index_select(own, 0, rows) for own in ids)
