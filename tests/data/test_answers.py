"""Records as batches: what a row is, what is counted, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import look, open_source, preflight
from trainjobs.data.answers import NOT_LEARNED, AnswerSource
from trainjobs.data.preferences import PreferenceSource, PromptSource
from trainjobs.noise import Noise

REWARDED = {"method": "grpo", "grpo": {"rewards": [{"function": "length", "target": 4}], "maxCompletion": 8}}
PAIRS = [{"prompt": "q" * (3 + n % 7), "completion": "a" * (1 + 5 * n % 11)} for n in range(40)]


def spec(path: Path, rows: list[Any], *, context: int = 32, holdout: float = 0.2, **language: Any) -> Spec:
    (path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Spec.model_validate(
        {
            "language": {"network": {"contextLength": context}, **language},
            "data": {"source": f"file://{path}", "holdout": holdout},
            "training": {"steps": 1, "batch": {"global": 8}},
        }
    )


def opened(asked: Spec, path: Path) -> Any:
    return open_source(asked, path / "cache", look(asked))


def read(source: Any, start: int, stop: int) -> dict[str, torch.Tensor]:
    positions = torch.arange(start, stop)
    found: dict[str, torch.Tensor] = source.batch(positions, 3, Noise.of(3, 0, "train", positions))
    return found


@pytest.mark.parametrize("packing", ["bfd", "wrapped", "none"])
def test_units_are_the_labels_of_the_batch_and_a_row_its_documents(packing: str, tmp_path: Path) -> None:
    asked = spec(tmp_path, PAIRS, packing=packing)
    source = opened(asked, tmp_path)
    assert isinstance(source, AnswerSource)
    rows = read(source, 0, source.info.length)
    learned = (rows["labels"] != NOT_LEARNED).sum(dim=1)
    assert torch.equal(learned, source.units(torch.arange(source.info.length), 3))
    whole = sum(len(row["completion"]) + 1 for row in PAIRS)
    held = source.heldout_batch(torch.arange(source.info.heldout))
    assert int(learned.sum()) + int((held["labels"] != NOT_LEARNED).sum()) == whole
    assert rows["tokens"].shape[1] <= 32
    if packing != "none":
        for row in range(len(learned)):
            for number in range(int(rows["documents"][row].max()) + 1):
                assert rows["positions"][row][rows["documents"][row] == number].tolist() == list(
                    range(int((rows["documents"][row] == number).sum()))
                )
    # A label is the token that the next column predicts from, wherever that is of the same document.
    inside = (rows["labels"][:, :-1] != NOT_LEARNED) & (
        rows["documents"][:, 1:] == rows["documents"][:, :-1] if packing != "none" else True
    )
    inside &= (rows["documents"][:, 1:] >= 0) if packing != "none" else rows["labels"][:, 1:] != NOT_LEARNED
    assert inside.any()
    assert torch.equal(rows["labels"][:, :-1][inside], rows["tokens"][:, 1:][inside])


def test_a_row_is_as_long_as_its_micro_batch_needs(tmp_path: Path) -> None:
    source = opened(spec(tmp_path, PAIRS, packing="none"), tmp_path)
    widths = {read(source, at, at + 1)["tokens"].shape[1] for at in range(10)}
    assert len(widths) > 1
    assert read(source, 0, 10)["tokens"].shape[1] == max(widths)


def test_records_that_do_not_fit_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [*PAIRS, {"prompt": "q", "completion": "a" * 50}, {"prompt": "", "completion": "a" * 60}]
    source = opened(spec(tmp_path, rows, packing="none"), tmp_path)
    assert source.info.length + source.info.heldout == 40
    assert "2 of 42 records are longer than 32 tokens (up to 62) and were left out" in caplog.text


def test_wrapped_cuts_what_is_longer_and_leaves_nothing_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"prompt": "q" * 40, "completion": "a" * 50}] * 4
    source = opened(spec(tmp_path, rows, packing="wrapped", holdout=0), tmp_path)
    assert "left out" not in caplog.text
    units = source.units(torch.arange(source.info.length), 3)
    assert int(units.sum()) == 4 * 51
    assert 0 in units.tolist(), "a piece of a prompt has nothing to learn"


def test_conversations_without_an_answer_are_left_out_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hey"}]
    rows = [{"messages": talk}] * 5 + [{"messages": talk[:1]}]
    source = opened(spec(tmp_path, rows, packing="none", holdout=0), tmp_path)
    assert source.info.length == 5
    assert "of 1 of 6 records nothing is learned" in caplog.text


@pytest.mark.parametrize(
    ("rows", "language", "what"),
    [
        ([{"messages": [{"role": "user", "content": "Hi"}]}] * 3, {}, "loss.tokens: auto leaves no token of 3 records"),
        ([{"prompt": "q", "completion": "a" * 99}] * 3, {}, "no record of 3 fits into the context"),
        ([{"prompt": "q"}] * 3, {}, "none of the formats"),
        ([{"prompt": "q", "completion": "a"}] * 3, {"method": "dpo"}, "none of the formats"),
        ([{"prompt": "q", "chosen": "a", "rejected": "a"}] * 3, {"method": "dpo"}, "the chosen answer is the rejected one"),
        ([], {}, "the data is empty"),
        ([{"prompt": "q" * 40}] * 3, REWARDED, "no record of 3 fits into the context.*the longest has 41"),
    ],
)
def test_data_that_nothing_is_learned_of_is_refused(rows: list[Any], language: dict[str, Any], what: str, tmp_path: Path) -> None:
    asked = spec(tmp_path, rows, holdout=0, **language)
    with pytest.raises(JobError, match=what) as error:
        opened(asked, tmp_path)
    assert error.value.code == "GTJ0113"
    assert error.value.how


def test_columns_of_no_format_are_told_with_the_table_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        preflight(spec(tmp_path, [{"question": "q", "id": "1"}] * 3))
    assert error.value.code == "GTJ0113"
    assert "none of the formats" in error.value.what
    assert "question (prompt)" in error.value.why
    assert "prompt + completion, or instruction (+ input) + output" in error.value.why
    assert "messages (of role and content)" in error.value.why
    assert error.value.how == "nearest is prompt and completion: name data.columns.completion"


@pytest.mark.parametrize(
    ("rows", "language", "words"),
    [
        (PAIRS, {}, "40 records of prompt and completion"),
        ([{"instruction": "Sum", "input": "1 1", "output": "2"}] * 4, {}, "prompt: instruction, completion: output"),
        ([{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}] * 4, {}, "4 records of chat"),
        ([{"chosen": "a b", "rejected": "a c"}] * 4, {"method": "reward"}, "4 records of preference"),
        ([{"text": "abc"}] * 4, {"packing": "bfd"}, "4 records of text"),
    ],
)
def test_formats_are_recognised_by_their_columns(rows: list[Any], language: dict[str, Any], words: str, tmp_path: Path) -> None:
    asked = spec(tmp_path, rows, **language)
    assert words in preflight(asked)
    assert opened(asked, tmp_path).info.length >= 1


def test_a_record_of_another_format_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(JobError) as error:
        preflight(spec(tmp_path, [*PAIRS[:2], {"prompt": "q"}]))
    assert error.value.code == "GTJ0113"
    assert error.value.where.endswith("train.jsonl:3")


def test_two_equal_answers_are_named_with_their_line(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": "q", "chosen": "a", "rejected": "a"}]
    with pytest.raises(JobError, match="the chosen answer is the rejected one") as error:
        opened(spec(tmp_path, rows, holdout=0, method="dpo"), tmp_path)
    assert (error.value.code, error.value.where.rpartition("/")[2]) == ("GTJ0113", "train.jsonl:2")


def test_text_by_document_is_cut_where_it_is_longer_and_loses_nothing(tmp_path: Path) -> None:
    texts = [{"text": chr(97 + n) * (10 * n + 1)} for n in range(10)]
    source = opened(spec(tmp_path, texts, packing="bfd", holdout=0), tmp_path)
    assert int(source.units(torch.arange(source.info.length), 3).sum()) == sum(len(one["text"]) + 1 for one in texts)


def test_plain_text_stays_one_stream_unless_asked(tmp_path: Path) -> None:
    source = opened(spec(tmp_path, [{"text": "abc" * 99}] * 4), tmp_path)
    assert source.info.form == ""
    assert set(read(source, 0, 2)) == {"tokens"}


def test_pairs_lie_side_by_side(tmp_path: Path) -> None:
    rows = [{"prompt": "q" * (n + 1), "chosen": "good" + "!" * n, "rejected": "bad"} for n in range(8)]
    source = opened(spec(tmp_path, rows, method="dpo", holdout=0), tmp_path)
    assert isinstance(source, PreferenceSource)
    batch = read(source, 0, 8)
    for row in range(8):
        count = int((batch["tokens"][row, 0] == ord("q")).sum())
        learned = [batch["labels"][row, side][batch["labels"][row, side] != NOT_LEARNED].tolist() for side in (0, 1)]
        assert bytes(learned[0][:-1]) == b"good" + b"!" * (count - 1)
        assert bytes(learned[1][:-1]) == b"bad"
        assert batch["lengths"][row].tolist() == [1 + count + len(one) for one in learned]


def test_groups_of_a_prompt_lie_together_and_bring_their_columns(tmp_path: Path) -> None:
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(6)]
    source = opened(spec(tmp_path, rows, context=64, method="grpo", grpo={"generations": 4, "maxCompletion": 8}, holdout=0), tmp_path)
    assert isinstance(source, PromptSource)
    assert source.info.length == 24
    batch = read(source, 0, 24)
    groups = batch["prompt"].view(6, 4, -1)
    assert torch.equal(groups, groups[:, :1].expand_as(groups))
    columns = [json.loads(bytes(row[row > 0].tolist())) for row in batch["columns"]]
    asked = [bytes(row[1:length].tolist()).decode() for row, length in zip(batch["prompt"], batch["prompt_length"], strict=True)]
    assert all(int(one.split("+")[0]) + 1 == int(found["answer"]) for one, found in zip(asked, columns, strict=True))
    assert len({*asked}) == 6


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("stdlib-pairs", 3500), ("stdlib-chat", 3500), ("stdlib-preferences", 3500)])
def test_the_standard_library_has_examples(name: str, least: int) -> None:
    from trainjobs.data import stdlib

    found = list(stdlib.records(name))
    assert len(found) >= least
    assert len({where for _, where, _, _ in found}) > 0.98 * len(found)
