"""The tokenizer of a trained model: tokenizer.json of the `tokenizers` library, and what tokenizer_config.json says of its special tokens.

No text encodes to a special token: a document that quotes "<|endoftext|>" is just a document. What the model expects before a text (Llama's
<s>) stands before every document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainjobs.api.errors import JobError
from trainjobs.api.pretrained import Base
from trainjobs.data.pretrained import CONFIG, Pretrained, fetched, pinned, unusable
from trainjobs.data.tokens import TRAINED

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


@dataclass(frozen=True)
class PretrainedTokenizer:
    """`inner` is a tokenizers.Tokenizer. `before` are the tokens that the model expects before a text, `ends` those at which it stops, of
    which `end` is the first; `pad` is `end` where there is no other, `mask` stands for a token that is to be told. `template` is the jinja
    that a job names in the place of the base's own (job_template.py)."""

    inner: Any
    base: Pretrained
    end: int
    ends: tuple[int, ...]
    bos: int | None
    pad: int
    before: tuple[int, ...]
    mask: int | None = None
    template: str | None = None

    @property
    def decoder_start(self) -> int:
        """The token from which a decoder writes. JobError GTJ0109 where the model names none."""
        config = self.base.json(CONFIG)
        for name in ("decoder_start_token_id", "bos_token_id"):
            for told in (config, self.base.json("generation_config.json"), _text(config)):
                if isinstance(told.get(name), int):
                    return int(told[name])
        why = "config.json has no decoder_start_token_id"
        raise unusable("the base does not say from which token its decoder writes", self.base.uri, why, "add it to config.json")

    @property
    def vocabulary(self) -> int:
        """One more than the largest number of a token."""
        return int(max(self.inner.get_vocab(with_added_tokens=True).values())) + 1

    @property
    def start(self) -> int:
        """The token after which a text begins."""
        return self.before[-1] if self.before else self.end

    @property
    def special(self) -> frozenset[int]:
        """Tokens that stand for no text."""
        return frozenset(number for number, token in self.inner.get_added_tokens_decoder().items() if token.special)

    @cached_property
    def sentinels(self) -> tuple[int, ...]:
        """<extra_id_0>, <extra_id_1> and so on, as many as there are: each stands for a span that is hidden (T5)."""
        numbers = (self.inner.token_to_id(f"<extra_id_{number}>") for number in count())
        return tuple(takewhile(lambda number: number is not None, numbers))

    @property
    def file(self) -> bytes:
        return (self.base.folder / TRAINED).read_bytes()

    def encode(self, text: str) -> list[int]:
        return list(self.inner.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: list[int]) -> str:
        return str(self.inner.decode(ids, skip_special_tokens=True))

    def arrays(self, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        import numpy as np

        found = self.inner.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(one.ids, dtype=np.int32) for one in found]


def pretrained_tokenizer(base: Base, cache: Path) -> PretrainedTokenizer:
    """The tokenizer of a base, for whoever needs no weights. JobErrors of `opened` and `read`."""
    return read(fetched(base, pinned(base, None), cache, weights=False))


def read(base: Pretrained) -> PretrainedTokenizer:
    """JobError GTJ0109 without a tokenizer that can be read, GTJ0208 when it has more tokens than the model."""
    from tokenizers import Tokenizer

    where = f"{base.uri}/{TRAINED}"
    if TRAINED not in base.files:
        raise _missing(base)
    try:
        inner = Tokenizer.from_file(str(base.folder / TRAINED))
    except Exception as error:  # the library raises nothing more exact
        raise unusable("the base's tokenizer cannot be read", where, str(error), "save it again with transformers") from error
    inner.no_padding()
    inner.no_truncation()
    config, generation, told = (base.json(name) for name in (CONFIG, "generation_config.json", "tokenizer_config.json"))
    found = {name: inner.token_to_id(text) for name, text in _named(told)}
    named = {name: number for name, number in found.items() if number is not None}
    ends = tuple(
        dict.fromkeys(
            [*_numbers(named.get("eos_token")), *_numbers(generation.get("eos_token_id")), *_numbers(_text(config).get("eos_token_id"))]
        )
    )
    ends = ends or tuple(_numbers(named.get("sep_token")))  # BERT's texts end so
    if not ends:
        why = "neither tokenizer_config.json nor config.json names an end of text"
        raise unusable("the base's tokenizer has no end of text", where, why, "add eos_token to tokenizer_config.json")
    around = inner.encode("", add_special_tokens=True).ids
    before = tuple(number for number in around if number not in ends)
    bos = named["bos_token"] if "bos_token" in named else (before[0] if before else None)
    inner.encode_special_tokens = True
    made = PretrainedTokenizer(inner, base, ends[0], ends, bos, named.get("pad_token", ends[0]), before, named.get("mask_token"))
    size = _text(config).get("vocab_size")
    if isinstance(size, int) and made.vocabulary > size:
        why = f"the tokenizer has {made.vocabulary:,} tokens, the model's embedding {size:,} rows"
        raise JobError("GTJ0208", "the base's tokenizer is larger than its embedding", where=where, why=why, how="save both together")
    return made


def _text(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a configuration says of its language model; of one that sees pictures as well, that is a part of it."""
    inner = config.get("text_config", config.get("decoder"))
    return inner if isinstance(inner, dict) else config


def _named(told: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in ("eos_token", "bos_token", "pad_token", "sep_token", "mask_token"):
        value = told.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            yield name, value


def _numbers(value: int | Sequence[int] | None) -> list[int]:
    return [] if value is None else [value] if isinstance(value, int) else list(value)


def _missing(base: Pretrained) -> JobError:
    pieces = next((name for name in ("tokenizer.model", "spiece.model") if name in base.files), None)
    if pieces is None:
        why, how = f"{TRAINED} is missing", "save the tokenizer beside the model: tokenizer.save_pretrained(folder) of transformers"
    else:
        why = f"{pieces} is sentencepiece's, which is read only to convert it"
        how = "pip install sentencepiece, then once: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    return unusable("the base has no tokenizer that can be read", base.uri, why, how)
