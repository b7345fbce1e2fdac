"""What a language model that is not causal is asked, from words: texts to go on from, texts with tokens to be told, pictures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.images import read
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer
from trainjobs.data.source import DataInfo


def data_of(task: str, texts: Sequence[str], info: DataInfo, context: int) -> Mapping[str, Tensor]:
    """As a batch of so many samples, all of one text. JobError GTJ0113 for one that is too long, or a picture that cannot be read."""
    tokenizer = info.tokenizer
    assert isinstance(tokenizer, PretrainedTokenizer)
    if task == "caption":
        return {"image": torch.stack([picture(text, info.shape) for text in texts])}
    rows = [ids(text, tokenizer, context) for text in texts]
    tokens = torch.tensor(rows)
    if task == "seq2seq":
        return {"source": tokens, "seen": torch.ones_like(tokens)}
    inside = torch.zeros_like(tokens)
    inside[:, len(tokenizer.before) : -1] = 1
    found = {"tokens": tokens, "seen": torch.ones_like(tokens), "maskable": inside}
    hidden = tokens.eq(-1 if tokenizer.mask is None else tokenizer.mask)
    return {**found, "labels": tokens.masked_fill(~hidden, NOT_LEARNED)} if hidden.any() else found


def ids(text: str, tokenizer: PretrainedTokenizer, context: int) -> list[int]:
    """The tokens of a text, its beginning and its end included; the words of the mask and of sentinels are those."""
    known = [*([] if tokenizer.mask is None else [tokenizer.mask]), *tokenizer.sentinels]
    words = {str(tokenizer.inner.id_to_token(number)): number for number in known}
    parts = re.split(f"({'|'.join(map(re.escape, words))})", text) if words else [text]
    encoded = ([words[part]] if part in words else tokenizer.encode(part) for part in parts)
    found = [*tokenizer.before, *chain.from_iterable(encoded), tokenizer.end]
    if len(found) > context:
        why = f"it has {len(found)} tokens, of the {context} that the model sees at once"
        raise JobError("GTJ0113", "the prompt is too long", where="--prompt", why=why, how="shorten it")
    return found


def picture(path: str, shape: tuple[int, ...]) -> Tensor:
    """float [C, H, W] in [-1, 1] of a file."""
    channels, size, _ = shape
    try:
        made = read(Path(path).read_bytes(), size, channels, path)
    except OSError as error:
        how = "name a picture's file: --prompt photo.png"
        raise JobError("GTJ0113", "the picture cannot be read", where=path, why=error.strerror or str(error), how=how) from error
    return torch.from_numpy(made.pixels.copy()).float().div(127.5).sub(1.0)
