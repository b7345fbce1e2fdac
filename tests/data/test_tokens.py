"""Tokenizers give back what they were given, and are the same every time."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainjobs.api.language import Tokenizer as TokenizerSpec
from trainjobs.data.documents import stdlib_files
from trainjobs.data.tokens import BpeTokenizer, ByteTokenizer, open_tokenizer, train_bpe

CORPUS = [path.read_text() for path in (Path(textwrap.__file__), Path(os.__file__))]


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    return train_bpe(CORPUS, 600)


@given(st.text())
def test_bytes_come_back(text: str) -> None:
    tokenizer = ByteTokenizer()
    ids = tokenizer.encode(text)
    assert ids == list(text.encode("utf-8"))
    assert tokenizer.arrays([text])[0].tolist() == ids
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode([*ids, tokenizer.end]) == text


@given(st.one_of(st.text(), st.sampled_from(CORPUS), st.just("<|endoftext|>"), st.just("  \r\n\t \x00")))
def test_pairs_come_back(bpe: BpeTokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert bpe.arrays([text])[0].tolist() == ids
    assert bpe.decode(ids) == text
    assert bpe.decode([bpe.end, *ids, bpe.end]) == text
    assert all(0 <= token < bpe.end for token in ids)


@given(st.lists(st.integers(0, 599), max_size=30))
def test_any_tokens_are_some_text(bpe: BpeTokenizer, ids: list[int]) -> None:
    """What an untrained model says is rarely UTF-8."""
    for tokenizer in (bpe, ByteTokenizer()):
        tokenizer.decode([token % tokenizer.vocabulary for token in ids]).encode("utf-8")


def test_the_vocabulary_counts_the_end(bpe: BpeTokenizer) -> None:
    assert (bpe.vocabulary, bpe.end) == (600, 599)
    assert (ByteTokenizer().vocabulary, ByteTokenizer().end) == (257, 256)
    assert sorted(bpe.inner.get_vocab().values()) == list(range(599))


def test_a_short_text_has_a_smaller_vocabulary() -> None:
    assert train_bpe(["abc"], 1024).vocabulary == 259  # 256 bytes, two merges, the end


def test_the_first_merge_is_the_most_frequent_pair() -> None:
    """Counted here over the words GPT-2's pattern makes of plain lower-case text: each keeps the space before it."""
    text = "the then there other weather bathe"
    words = [("Ġ" if number else "") + word for number, word in enumerate(text.split())]
    counts = Counter(pair for word in words for pair in pairwise(word))
    best = max(counts.values())
    merged = train_bpe([text], 258).inner.id_to_token(256)
    assert tuple(merged) in {pair for pair, count in counts.items() if count == best}


def test_pairs_are_fewer_than_bytes(bpe: BpeTokenizer) -> None:
    assert len(bpe.encode(CORPUS[0])) < 0.6 * len(CORPUS[0])


def test_training_does_not_depend_on_the_order_of_the_documents() -> None:
    assert train_bpe(CORPUS, 600).inner.to_str() == train_bpe(CORPUS[::-1], 600).inner.to_str()


@pytest.mark.slow
def test_training_is_the_same_in_every_process(tmp_path: Path) -> None:
    script = (
        "from trainjobs.data.documents import *; from trainjobs.data.tokens import train_bpe; import hashlib;"
        "texts = [file.path.read_text() for file in stdlib_files()[:40]];"
        "print(hashlib.sha256(train_bpe(texts, 1000).inner.to_str().encode()).hexdigest())"
    )
    results = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed, "TOKENIZERS_PARALLELISM": parallel},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, parallel in (("1", "true"), ("2", "false"))
    }
    assert len(results) == 1
    assert len(results.pop().strip()) == 64


def test_a_trained_tokenizer_is_kept(tmp_path: Path) -> None:
    spec = TokenizerSpec(type="bpe", vocabulary_size=300)
    path = tmp_path / "cache" / "tokenizer.json"
    first = open_tokenizer(spec, CORPUS, path)
    second = open_tokenizer(spec, ["what is never read"], path)
    assert first.encode(CORPUS[0]) == second.encode(CORPUS[0])
    assert second.vocabulary == 300


def test_another_library_reads_what_is_kept(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    path = tmp_path / "tokenizer.json"
    ours = open_tokenizer(TokenizerSpec(type="bpe", vocabulary_size=400), CORPUS, path)
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_file=str(path))
    theirs.add_special_tokens({"eos_token": "<|endoftext|>"})
    assert theirs(CORPUS[0])["input_ids"] == ours.encode(CORPUS[0])
    assert theirs.eos_token_id == ours.end


def test_the_standard_library_compresses() -> None:
    text = "".join(file.path.read_text() for file in stdlib_files()[:5])
    tokenizer = train_bpe([text], 1024)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert len(text) / len(tokenizer.encode(text)) > 2
