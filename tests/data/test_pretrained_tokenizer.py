"""The tokenizer of a base gives the tokens that transformers gives, and no text becomes a special one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.models.bases import BOS, END, tokenizer
from trainjobs.api.errors import JobError
from trainjobs.data.pretrained import Pretrained
from trainjobs.data.pretrained_tokenizer import PretrainedTokenizer, read
from trainjobs.data.text import encoded

pytestmark = pytest.mark.slow  # transformers takes seconds to import

TEXT = "Grüße, world\n\tdef f(): pass"


def given(folder: Path, *, bos: bool = False, vocabulary: int = 259) -> PretrainedTokenizer:
    tokenizer(folder, bos=bos)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": vocabulary}))
    return read(Pretrained("source", "uri", folder, {path.name: "digest" for path in folder.iterdir()}))


@pytest.mark.parametrize("bos", [False, True])
def test_tokens_are_those_of_transformers(tmp_path: Path, bos: bool) -> None:
    from transformers import AutoTokenizer

    ours, theirs = given(tmp_path, bos=bos), AutoTokenizer.from_pretrained(tmp_path)
    assert [*ours.before, *ours.encode(TEXT)] == theirs(TEXT).input_ids
    assert ours.arrays([TEXT])[0].tolist() == ours.encode(TEXT)
    line = b"".join(row for _, row in encoded(ours, iter([(False, "ab"), (False, "c")])))
    assert np.frombuffer(line, "<i4").tolist() == [*theirs("ab").input_ids, ours.end, *theirs("c").input_ids, ours.end]
    assert ours.decode([*ours.encode(TEXT), ours.end]) == TEXT
    assert (ours.end, ours.pad, ours.vocabulary) == (theirs.eos_token_id, theirs.pad_token_id, len(theirs))
    assert ours.start == (theirs.bos_token_id if bos else theirs.eos_token_id)
    assert ours.special == set(theirs.all_special_ids) | {257}


def test_a_text_that_quotes_a_special_token_is_just_a_text(tmp_path: Path) -> None:
    ours = given(tmp_path)
    quoted = f"it ends with {END}, and begins with {BOS}"
    assert not set(ours.encode(quoted)) & ours.special
    assert ours.decode(ours.encode(quoted)) == quoted


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="259 tokens") as error:
        given(tmp_path, vocabulary=258)
    assert error.value.code == "GTJ0208"
    assert given(tmp_path, vocabulary=320).vocabulary == 259  # an embedding that is padded has more


@pytest.mark.parametrize(
    ("name", "words"), [("", "tokenizer.json is missing"), ("tokenizer.model", "pip install sentencepiece"), ("broken", "cannot be read")]
)
def test_what_cannot_be_read_is_refused(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    files = {"tokenizer.json": "digest"} if name == "broken" else {name: "digest"}
    with pytest.raises(JobError) as error:
        read(Pretrained("source", "uri", tmp_path, files))
    assert error.value.code == "GTJ0109"
    assert words in f"{error.value.what} {error.value.why} {error.value.how}"


def test_no_end_of_text_is_refused(tmp_path: Path) -> None:
    given(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(JobError, match="no end of text") as error:
        read(Pretrained("source", "uri", tmp_path, {"tokenizer.json": "", "config.json": "", "tokenizer_config.json": ""}))
    assert error.value.code == "GTJ0109"
