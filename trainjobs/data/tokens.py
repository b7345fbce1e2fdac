"""Tokenizers: text to numbers and back.

Both are byte-level, so any text can be encoded and nothing is ever unknown. The end-of-text token stands after every document; it is no
text, so no text encodes to it (a document that quotes "<|endoftext|>" is just a document).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from trainjobs.api.language import Tokenizer as TokenizerSpec
from trainjobs.data.cache import cached

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

TRAINED = "tokenizer.json"


class Tokenizer(Protocol):
    @property
    def vocabulary(self) -> int:
        """Number of tokens, the end-of-text token included."""
        ...

    @property
    def end(self) -> int:
        """The end-of-text token; of those that are made here the last of the vocabulary."""
        ...

    @property
    def ends(self) -> tuple[int, ...]:
        """The tokens at which what is drawn is over; `end` is the first."""
        ...

    @property
    def before(self) -> tuple[int, ...]:
        """The tokens that stand before every document; none but where a trained model expects some."""
        ...

    @property
    def start(self) -> int:
        """The token after which a text begins: the last of `before`, else the end of the document before."""
        ...

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, without the end-of-text token: decode(encode(text)) == text."""
        ...

    def decode(self, ids: list[int]) -> str:
        """The text of any tokens. End-of-text tokens are left out; bytes that are not UTF-8 become U+FFFD."""
        ...

    def arrays(self, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        """`encode` of each, as arrays."""
        ...


@dataclass(frozen=True)
class ByteTokenizer:
    """One token per byte of UTF-8."""

    vocabulary: int = 257
    end: int = 256
    ends: tuple[int, ...] = (256,)
    start: int = 256
    before: tuple[int, ...] = ()

    def encode(self, text: str) -> list[int]:
        return list(text.encode())

    def decode(self, ids: list[int]) -> str:
        return bytes(token for token in ids if token < 256).decode(errors="replace")

    def arrays(self, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        import numpy as np

        return [np.frombuffer(text.encode(), dtype=np.uint8).astype(np.int32) for text in texts]


@dataclass(frozen=True)
class BpeTokenizer:
    """Byte-pair encoding (Sennrich et al., 2016) of bytes (Radford et al., 2019), by the `tokenizers` library.

    `inner` is a tokenizers.Tokenizer; its own vocabulary does not hold the end-of-text token, which gets the number after the last.
    """

    inner: Any
    before: tuple[int, ...] = ()

    @property
    def vocabulary(self) -> int:
        return int(self.inner.get_vocab_size()) + 1

    @property
    def end(self) -> int:
        return int(self.inner.get_vocab_size())

    @property
    def ends(self) -> tuple[int, ...]:
        return (self.end,)

    @property
    def start(self) -> int:
        return self.end

    def encode(self, text: str) -> list[int]:
        return list(self.inner.encode(text).ids)

    def decode(self, ids: list[int]) -> str:
        end = self.end
        return str(self.inner.decode([token for token in ids if token < end]))

    def arrays(self, texts: list[str]) -> list[npt.NDArray[np.int32]]:
        import numpy as np

        return [np.array(found.ids, dtype=np.int32) for found in self.inner.encode_batch_fast(texts)]


def up_to_end(tokenizer: Tokenizer, tokens: Iterable[int]) -> list[int]:
    """What was drawn before the first token at which it is over."""
    return list(takewhile(lambda token: token not in tokenizer.ends, tokens))


def train_bpe(documents: Iterable[str], vocabulary_size: int) -> BpeTokenizer:
    """The merges of the most frequent pairs, ties broken by token number: the same for the same documents in any order.

    `vocabulary_size` counts the 256 bytes and the end-of-text token. A short text has fewer pairs to merge, and a smaller vocabulary.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size - 1, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), special_tokens=[], show_progress=False
    )
    inner.train_from_iterator(documents, trainer=trainer)
    return BpeTokenizer(inner)


def kept(tokenizer: Tokenizer | None) -> dict[str, bytes]:
    """The files, by name, that a reader without the data needs to tell the text of tokens: what `open_tokenizer` trained, else none."""
    return {TRAINED: tokenizer.inner.to_str().encode()} if isinstance(tokenizer, BpeTokenizer) else {}


def read_tokenizer(data: bytes) -> Tokenizer:
    """The tokenizer whose file `kept` gave to a checkpoint."""
    from tokenizers import Tokenizer

    return BpeTokenizer(Tokenizer.from_str(data.decode()))


def open_tokenizer(spec: TokenizerSpec, documents: Iterable[str], path: Path) -> Tokenizer:
    """The tokenizer of a job. One that is trained is kept in `path`, as JSON of the `tokenizers` library."""
    if spec.type == "byte":
        return ByteTokenizer()
    from tokenizers import Tokenizer

    def write(file: BinaryIO) -> None:
        file.write(train_bpe(documents, spec.vocabulary_size).inner.to_str(pretty=True).encode())

    return BpeTokenizer(Tokenizer.from_file(str(cached(path, write))))
