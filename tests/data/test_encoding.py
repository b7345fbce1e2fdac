"""What of a record is learned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.data.conversation import Turns
from trainjobs.data.encoding import Encoder, encode
from trainjobs.data.formats import Format
from trainjobs.data.sequences import Record, sequences
from trainjobs.data.tokens import ByteTokenizer, Tokenizer, train_bpe

BYTES = ByteTokenizer()
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hey"}, {"role": "user", "content": "?"}]


def encoder(on: str = "auto", tokenizer: Tokenizer = BYTES) -> Encoder:
    return Encoder(tokenizer, Turns(tokenizer), on)


def learned(form: Format, values: Mapping[str, Any], on: str = "auto") -> list[str]:
    """Of each sequence the tokens that are learned, ends as ▮."""
    found = []
    for tokens, marks in encode(encoder(on), form)(values, "a.jsonl:1"):
        assert len(tokens) == len(marks)
        assert tokens[0] == BYTES.end
        assert not marks[0], "the first token is nobody's target"
        found.append("".join("▮" if one == BYTES.end else chr(one) for one, mark in zip(tokens, marks, strict=True) if mark))
    return found


@pytest.mark.parametrize(
    ("form", "values", "on", "wanted"),
    [
        ("text", {"text": "abc"}, "auto", ["abc▮"]),
        ("pair", {"prompt": "1+1=", "completion": "2"}, "auto", ["2▮"]),
        ("pair", {"prompt": "1+1=", "completion": "2"}, "completion", ["2▮"]),
        ("pair", {"prompt": "1+1=", "completion": "2"}, "all", ["1+1=2▮"]),
        ("pair", {"prompt": "Sum", "input": "1 1", "completion": "2"}, "all", ["Sum\n1 12▮"]),
        ("pair", {"prompt": TALK[:1], "completion": TALK[1:2]}, "auto", ["Hey▮"]),
        ("pair", {"prompt": TALK[:1], "completion": "Hey"}, "auto", ["Hey▮"]),
        ("chat", {"messages": TALK}, "auto", ["Hey▮"]),
        ("chat", {"messages": [*TALK, {"role": "assistant", "content": "!"}]}, "assistant", ["Hey▮!▮"]),
        ("chat", {"messages": [*TALK, {"role": "assistant", "content": "!"}]}, "completion", ["!▮"]),
        ("chat", {"messages": TALK[:2]}, "all", ["user\nHi▮assistant\nHey▮"]),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": "cc"}, "auto", ["b▮", "cc▮"]),
        ("preference", {"chosen": "Say hello", "rejected": "Say help"}, "auto", ["hello▮", "help▮"]),
        ("preference", {"chosen": TALK[:2], "rejected": [TALK[0], {"role": "assistant", "content": "No"}]}, "auto", ["Hey▮", "No▮"]),
        ("preference", {"prompt": TALK[:1], "chosen": TALK[1:2], "rejected": "No"}, "auto", ["Hey▮", "No▮"]),
        ("prompts", {"prompt": "a"}, "auto", [""]),
    ],
)
def test_what_is_learned(form: Format, values: Mapping[str, Any], on: str, wanted: list[str]) -> None:
    assert learned(form, values, on) == wanted


def test_the_end_is_learned_though_it_also_fills_up() -> None:
    """A mask by token would take out every end, and a model that never saw one never stops."""
    ((tokens, marks),) = encoder().pair({"prompt": "a", "completion": "b"}, "")
    assert tokens[-1] == BYTES.end
    assert marks[-1]


def test_a_prompts_tokens_are_those_of_the_prompt_alone_and_others_are_counted() -> None:
    bpe = train_bpe(["ab ab ab abab"] * 5, 260)
    ours = encoder(tokenizer=bpe)
    ((tokens, _),) = ours.pair({"prompt": "a", "completion": "b"}, "")
    assert tokens == [bpe.end, *bpe.encode("a"), *bpe.encode("b"), bpe.end]
    assert ours.joined == 1
    ours.pair({"prompt": "ab", "completion": " ab"}, "")
    assert ours.joined == 1


def test_an_error_in_reading_comes_after_those_of_the_records_before_it(tmp_path: Path) -> None:
    def records() -> Iterator[Record]:
        yield "1", "a.jsonl:1", {"prompt": "a", "completion": None}, False
        raise JobError("GTJ0113", "this is no JSON", where="a.jsonl:2")

    with pytest.raises(JobError) as error:
        sequences(records(), "pair", encoder(), 10, "a.jsonl", None, tmp_path / "made.bin")
    assert error.value.where == "a.jsonl:1"

    def good() -> Iterator[Record]:
        yield "1", "a.jsonl:1", {"prompt": "a", "completion": "b"}, False
        raise JobError("GTJ0113", "this is no JSON", where="a.jsonl:2")

    with pytest.raises(JobError) as error:
        sequences(good(), "pair", encoder(), 10, "a.jsonl", None, tmp_path / "made.bin")
    assert error.value.where == "a.jsonl:2"


@pytest.mark.parametrize(
    ("form", "values", "on", "code", "what"),
    [
        ("pair", {"prompt": "a", "completion": None}, "auto", "GTJ0113", "no text for completion"),
        ("pair", {"prompt": 3, "completion": "b"}, "auto", "GTJ0113", "no text for prompt"),
        ("preference", {"prompt": "a", "chosen": "b", "rejected": "b"}, "auto", "GTJ0113", "the chosen answer is the rejected one"),
        ("preference", {"chosen": "b", "rejected": TALK}, "auto", "GTJ0113", "the other a list of messages"),
        ("text", {"text": "abc"}, "assistant", "GTJ0108", "the data is plain text"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(form: Format, values: Mapping[str, Any], on: str, code: str, what: str) -> None:
    with pytest.raises(JobError, match=what) as error:
        encode(encoder(on), form)(values, "a.jsonl:5")
    assert error.value.code == code
    assert error.value.where in ("a.jsonl:5", "language.loss.tokens")
    assert error.value.how
