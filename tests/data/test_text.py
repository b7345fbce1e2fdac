"""Text becomes one line of tokens, and the line sequences that overlap by one token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.data.positions import SEED, shown
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import documents, open_source, text
from trainjobs.data.text import TextSource
from trainjobs.data.tokens import ByteTokenizer, kept
from trainjobs.noise import Noise

Make = Callable[..., Spec]
END = 256


def opened(job: Make, path: Path, cache: Path, context: int = 4, **change: object) -> TextSource:
    options = {"network": {"contextLength": context}, "tokenizer": change.pop("tokenizer", {})}
    source = open_source(job("language", f"file://{path}", options, **({"holdout": 0} | change)), cache)
    assert isinstance(source, TextSource)
    return source


def everything(source: TextSource) -> list[list[int]]:
    indices = torch.arange(source.info.length)
    return source.batch(shown(source, indices), SEED, Noise.of(0, 0, "train", indices))["tokens"].tolist()


def test_documents_are_joined_in_the_order_of_their_names(job: Make, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "b").mkdir(parents=True)
    (data / "b" / "one.md").write_text("cd")
    (data / "a.txt").write_text("ab")
    (data / "c.py").write_text("ef")
    (data / "d.txt").write_text("")
    (data / "notes.pdf").write_bytes(b"\xff\x00")
    (data / "e.jsonl").write_text('{"text": "gh", "id": 1}\n\n{"text": ""}\n{"text": "ij"}\n')
    source = opened(job, data, tmp_path / "cache", context=3)
    a, b, c, d, e, f, g, h, i, j = b"abcdefghij"
    line = [a, b, END, c, d, END, e, f, END, g, h, END, i, j, END]
    assert everything(source) == [line[0:4], line[3:7], line[6:10], line[9:13]]
    assert (source.info.shape, source.info.vocabulary, source.info.length) == ((3,), 257, 4)
    assert source.batch(shown(source, torch.tensor([0])), SEED, Noise.of(0, 0, "train", torch.tensor([0])))["tokens"].dtype == torch.int64


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(
    st.binary(min_size=30, max_size=120).map(lambda raw: "".join(chr(97 + byte % 26) for byte in raw)),
    st.integers(2, 9),
    st.sampled_from([0, 0.1, 0.5]),
)
def test_every_token_but_the_first_is_predicted_once(
    job: Make, tmp_path_factory: pytest.TempPathFactory, text: str, context: int, holdout: float
) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    path.write_text(text)
    source = opened(job, path, path.parent / "cache", context=context, holdout=holdout)
    heldout = source.heldout_batch(torch.arange(source.info.heldout))["tokens"].tolist()
    predicted = [token for sequence in everything(source) + heldout for token in sequence[1:]]
    line = [*text.encode(), END]
    assert predicted == line[1 : 1 + len(predicted)]
    assert len(line) - 1 - len(predicted) < context  # only a tail that fills no sequence is left out
    assert len(heldout) == (max(1, round((len(line) - 1) // context * holdout)) if holdout else 0)


def test_a_trained_tokenizer_comes_with_the_data(job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("the cat sat on the mat. " * 50)
    source = opened(job, path, tmp_path / "cache", tokenizer={"type": "bpe", "vocabularySize": 280})
    tokenizer = source.info.tokenizer
    assert tokenizer is not None
    line = everything(source)
    flat = line[0] + [token for sequence in line[1:] for token in sequence[1:]]
    assert path.read_text().startswith(tokenizer.decode(flat))
    assert len(tokenizer.decode(flat)) > 0.95 * len(path.read_text())
    assert source.info.vocabulary == tokenizer.vocabulary <= 280


def test_changed_text_is_read_again(job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("aaaaaaaa")
    assert everything(opened(job, path, tmp_path / "cache"))[0] == [97] * 5
    path.write_text("bbbbbbbbb")
    assert everything(opened(job, path, tmp_path / "cache"))[0] == [98] * 5


def test_another_context_length_needs_no_new_tokens(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_text("abcdefghijkl")
    opened(job, path, tmp_path / "cache")

    def unread(dataset: object, shelf: object) -> Iterator[str]:
        yield pytest.fail("read again")

    monkeypatch.setattr("trainjobs.data.dataset.Dataset.documents", unread)
    assert everything(opened(job, path, tmp_path / "cache", context=6)) == [list(b"abcdefg"), [*b"ghijkl", END]]


def test_another_field_is_another_text(job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "aaaaa", "body": "bbbbb"}))
    assert everything(opened(job, path, tmp_path / "cache"))[0] == [97] * 5
    assert everything(opened(job, path, tmp_path / "cache", text={"field": "body"}))[0] == [98] * 5


def test_windows_text_is_read_as_text(job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo".encode())
    assert everything(opened(job, path, tmp_path / "cache", context=7)) == [[*b"one\ntwo", END]]


def test_half_a_surrogate_pair_does_not_stop_training(job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "ab\\ud800cd"}')
    assert everything(opened(job, path, tmp_path / "cache"))[0] == list(b"ab?cd")


def test_repetitive_text_that_shrinks_to_nothing_is_an_error_when_it_is_opened(job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n".join(["a" * 5000] * 20))
    with pytest.raises(JobError, match=r"GTJ0113 the text is too short .* tokens found, 257 needed for one sequence of 256"):
        opened(job, path, tmp_path / "cache", context=256, tokenizer={"type": "bpe", "vocabularySize": 8000})


def long_text(count: int) -> str:
    return "".join(f"Sentence {number} says {number * number}.\n" for number in range(count))


def halves(source: TextSource) -> tuple[str, str]:
    """What is trained on and what is held out, as text, end-of-text tokens as newlines."""
    train = everything(source)
    held = source.heldout_batch(torch.arange(source.info.heldout))["tokens"].tolist()
    return tuple("".join(chr(token) if token < END else "\n" for row in rows for token in row[1:]) for rows in (train, held))  # type: ignore[return-value]


def test_text_that_grows_moves_nothing_to_the_other_side(job: Make, tmp_path: Path) -> None:
    """By place, the last twentieth of a longer text is another twentieth, which was trained on before."""
    path = tmp_path / "data" / "a.txt"
    path.parent.mkdir()
    path.write_text(long_text(60_000))
    _, held = halves(opened(job, path.parent, tmp_path / "cache", context=64, holdout=0.1))
    path.write_text(long_text(60_000) + "And this was added.\n" * 4_000)
    (path.parent / "0.txt").write_text("A file in front. " * 2_000)
    train, later = halves(opened(job, path.parent, tmp_path / "cache", context=64, holdout=0.1))
    sentences = set(re.findall(r"^Sentence \d+ says \d+\.$", held, re.MULTILINE))
    assert len(sentences) > 3_000
    kept = set(re.findall(r"^Sentence \d+ says \d+\.$", later, re.MULTILINE))
    assert len(sentences - kept) <= 40, "but for those at the edges of sequences"
    assert not sentences & set(re.findall(r"^Sentence \d+ says \d+\.$", train, re.MULTILINE))


def test_a_record_stays_on_its_side_wherever_its_line_is(job: Make, tmp_path: Path) -> None:
    records = [json.dumps({"text": f"record {number} " * 20}) for number in range(400)]
    (tmp_path / "a.jsonl").write_text("\n".join(records))
    _, held = halves(opened(job, tmp_path / "a.jsonl", tmp_path / "cache", context=8, holdout=0.2))
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps({"text": "new " * 40}), *reversed(records)]))
    _, later = halves(opened(job, tmp_path / "a.jsonl", tmp_path / "cache", context=8, holdout=0.2))
    assert len(set(re.findall(r"record \d+ ", held))) > 50
    assert set(re.findall(r"record \d+ ", held)) == set(re.findall(r"record \d+ ", later))


@pytest.mark.slow
def test_a_run_that_goes_on_keeps_its_tokenizer_and_its_rule(job: Make, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(long_text(30_000))
    options = {"network": {"contextLength": 8}, "tokenizer": {"type": "bpe", "vocabularySize": 300}}
    first = open_source(job("language", f"file://{path}", options), tmp_path / "cache")
    files = kept(first.info.tokenizer)
    path.write_text(long_text(30_000) + "zzzz qqqq " * 40_000)
    again = open_source(job("language", f"file://{path}", options), tmp_path / "cache", tokenizer=files["tokenizer.json"])
    new = open_source(job("language", f"file://{path}", options), tmp_path / "cache")
    assert kept(again.info.tokenizer) == files
    assert kept(new.info.tokenizer) != files
    placed = open_source(job("language", f"file://{path}", options), tmp_path / "cache", rule="place")
    sequences = placed.info.length + placed.info.heldout
    assert placed.info.heldout == round(sequences * 0.05)


@pytest.mark.parametrize(("vocabulary", "kind"), [(1 << 16, torch.uint16), ((1 << 16) + 1, torch.int32)])
@pytest.mark.parametrize("holdout", [0, 0.1])
def test_tokens_lie_in_two_bytes_where_the_vocabulary_fits(
    vocabulary: int, kind: torch.dtype, holdout: float, job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Numbers(ByteTokenizer):
        """A letter is the number of the token before the last, or one below, ..."""

        def arrays(self, texts: list[str]) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
            return [np.array([vocabulary - 2 - ord(letter) + 97 for letter in one], dtype=np.int32) for one in texts]

    tokenizer = Numbers(vocabulary, end=vocabulary - 1)
    monkeypatch.setattr(text, "open_tokenizer", lambda *_: tokenizer)
    monkeypatch.setattr(text, "PIECE", 32)
    monkeypatch.setattr(documents, "PIECE", 32)
    (tmp_path / "data").mkdir()
    for number in range(40):
        (tmp_path / "data" / f"{number:02}.txt").write_text("abcdefg" * 12)
    source = opened(job, tmp_path / "data", tmp_path / "cache", context=6, holdout=holdout)
    assert source.sequences.dtype == kind
    (path,) = (tmp_path / "cache").glob("tokens-*.bin")
    # A document that is divided has an end of text after each part.
    assert 40 * 85 <= (path.stat().st_size - (16 if holdout else 0)) / kind.itemsize < 40 * 88
    letters = [vocabulary - 2 - offset for offset in range(7)]
    shown_tokens = {token for sequence in everything(source) for token in sequence}
    assert shown_tokens == {*letters, vocabulary - 1}, "as many as there are, whatever they take"
    if holdout:
        held = source.heldout_batch(torch.arange(source.info.heldout))["tokens"]
        assert held.dtype == torch.int64
        assert {*held.flatten().tolist()} == {*letters, vocabulary - 1}
