"""Pictures read batch by batch: the samples that are due, what is fetched for them, and what becomes of those that cannot be read."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.streams import Kept, Pictures, greys, streamed
from trainjobs.api.errors import JobError
from trainjobs.data.bad import NAMED, BadSamples
from trainjobs.data.order import Order, Places
from trainjobs.data.streamed import SOON
from trainjobs.noise import Noise

ORDERS = [Order(), Order("blocks", 2, 2)]


def noise(positions: torch.Tensor) -> Noise:
    return Noise.of(0, 0, "train", positions)


def seen(source, positions: torch.Tensor, seed: int = 0) -> list[int]:  # type: ignore[no-untyped-def]
    return greys(source.batch(positions, seed, noise(positions)))


@pytest.mark.parametrize("order", ORDERS, ids=["whole", "blocks"])
def test_a_batch_holds_the_rows_that_the_order_says(order: Order) -> None:
    records = Pictures([30, 0, 20, 25, 40])
    source = streamed(records, order)
    assert (source.info.length, source.info.heldout) == (115, 0)
    positions = torch.arange(100, 140)  # into the second epoch
    batch = source.batch(positions, 3, noise(positions))
    expected = Places(order, np.array(records.lengths)).numbers(positions, 3).tolist()
    assert greys(batch) == expected
    assert batch["image"].shape == (40, 1, 8, 8)
    assert batch["label"].tolist() == [number % 3 for number in expected]
    assert "caption" not in batch
    assert len(records.reads) == len({block for block, _ in records.reads})  # a block is read once for all of its rows


def test_held_out_samples_are_apart() -> None:
    source = streamed(Pictures([60, 60]), Order(), holdout=0.25)
    trained = seen(source, torch.arange(source.info.length))
    held = greys(source.heldout_batch(torch.arange(source.info.heldout)))
    assert sorted(trained + held) == list(range(120))
    assert held == sorted(held)


def test_flips_follow_the_noise() -> None:
    class Halves(Pictures):
        def _record(self, block, row, columns):  # type: ignore[no-untyped-def]
            file, half = BytesIO(), np.zeros((8, 8), np.uint8)
            half[:, 4:] = 255
            Image.fromarray(half).save(file, "png")
            record = super()._record(block, row, columns)
            return type(record)(record.name, record.where, {**record.values, "png": file.getvalue()})

    source = streamed(Halves([40]), Order(), images={"augment": ["horizontalFlip"]})
    positions = torch.arange(40)
    flipped = source.batch(positions, 0, noise(positions))["image"][:, 0, 0, 0] > 0
    assert torch.equal(flipped, noise(positions).uniform("horizontalFlip") < 0.5)


def test_captions_are_bytes_of_one_length() -> None:
    source = streamed(Pictures([20]), Order(), roles={"image": "png", "caption": "txt"}, caption=10)
    captions = source.batch(torch.arange(5), 0, noise(torch.arange(5)))["caption"]
    texts = [bytes(byte for byte in row if byte < 256).decode() for row in captions.tolist()]
    assert captions.shape == (5, 10)
    assert captions.dtype == torch.int64
    assert texts == [f"number {number}" for number in seen(source, torch.arange(5))]
    short = streamed(Pictures([20]), Order(), roles={"image": "png", "caption": "txt"}, caption=7)
    with pytest.raises(JobError, match=r"GTJ0113 captions are longer than 7 bytes .*20 of the 20 that were read together, up to 9 bytes"):
        short.batch(torch.arange(20), 0, noise(torch.arange(20)))


def test_labels_in_words_have_numbers() -> None:
    source = streamed(Pictures([20]), Order(), roles={"image": "png", "label": "txt"}, classes={f"number {n}": 19 - n for n in range(20)})
    batch = source.batch(torch.arange(20), 0, noise(torch.arange(20)))
    assert batch["label"].tolist() == [19 - number for number in greys(batch)]
    wrong = streamed(Pictures([20]), Order(), roles={"image": "png", "label": "txt"}, classes={"number 3": 0})
    with pytest.raises(JobError, match="which is none of the classes"):
        wrong.batch(torch.arange(20), 0, noise(torch.arange(20)))


def test_conditions_are_those_of_held_out_samples() -> None:
    source = streamed(Pictures([40]), Order(), holdout=0.2, roles={"image": "png", "label": "cls", "caption": "txt"}, caption=12)
    count = source.info.heldout
    held, found = source.heldout_batch(torch.arange(count)), source.conditions(torch.arange(2 * count))
    assert found.keys() == {"label", "caption"}
    assert torch.equal(found["label"], held["label"].repeat(2))
    assert torch.equal(found["caption"], held["caption"].repeat(2, 1))
    assert streamed(Pictures([40]), Order(), roles={"image": "png"}).conditions(torch.arange(3)) == {}


def test_what_is_mixed_next_is_fetched_ahead() -> None:
    records, shelf = Pictures([10] * 12), Kept()
    source = streamed(records, Order("blocks", 3, 3), shelf=shelf)
    source.rows(torch.arange(25, 35), 0)
    coming = source.places.coming(25, 0)
    assert shelf.asked == [[f"{block:03d}.tar" for _ in range(2) for block in next(coming)]]


def test_of_a_whole_order_the_blocks_of_the_next_samples_are_fetched_in_the_order_of_their_need() -> None:
    records, shelf = Pictures([10] * 12), Kept()
    source = streamed(records, Order(), shelf=shelf)
    source.rows(torch.arange(7), 0)
    needed = (source.places.numbers(torch.arange(120), 0) // 10).tolist()
    assert shelf.asked == [[f"{block:03d}.tar" for block in dict.fromkeys(needed)]]


def test_a_batch_holds_its_shards_together_and_no_more_than_are_mixed() -> None:
    shelf = Kept()
    source = streamed(Pictures([10] * 12), Order(), shelf=shelf)
    source.rows(torch.arange(20), 0)
    needed = (source.places.numbers(torch.arange(20), 0) // 10).tolist()
    assert [sorted(held) for held in shelf.held] == [sorted({f"{block:03d}.tar" for block in needed})]
    shelf = Kept()
    source = streamed(Pictures([10] * 12), Order("blocks", 3, 3), shelf=shelf)
    source.rows(torch.arange(75), 0)
    assert max(map(len, shelf.held)) == 3
    assert len(shelf.held) >= 3


def test_what_comes_is_looked_at_again_before_it_is_needed() -> None:
    records, shelf = Pictures([100] * 120), Kept()
    source = streamed(records, Order(), shelf=shelf)
    for first in (0, 1030, 3000):
        source.rows(torch.arange(first, first + 64), 0)
        coming = (source.places.numbers(torch.arange(first, first + SOON), 0) // 100).tolist()
        assert {f"{block:03d}.tar" for block in coming} <= set(shelf.asked[-1])


def test_what_lies_here_is_not_fetched() -> None:
    shelf = Kept()
    streamed(Pictures([10] * 4, remote=False), Order(), shelf=shelf).rows(torch.arange(7), 0)
    assert shelf.asked == []


# --- bad samples ---------------------------------------------------------------------------------------------------------------------


def bad(path: Path, samples: int, told: list[str] | None = None) -> BadSamples:
    return BadSamples(path / "bad-samples.jsonl", samples, "s3://bucket/data", (told if told is not None else []).append)


@pytest.mark.parametrize("kind", ["broken", "torn"])
def test_a_bad_sample_is_an_error_that_names_it(kind: str) -> None:
    source = streamed(Pictures([20, 20], **{kind: {25}}), Order())
    with pytest.raises(JobError) as caught:
        seen(source, torch.arange(40))
    assert caught.value.code == "GTJ0113"
    assert caught.value.where == "s3://bucket/001.tar/5"


@pytest.mark.parametrize("order", ORDERS, ids=["whole", "blocks"])
def test_a_bad_sample_gives_its_place_to_the_next_good_one(tmp_path: Path, order: Order) -> None:
    told: list[str] = []
    records = Pictures([20, 20], broken={24, 25}, torn={39})
    good = seen(streamed(Pictures([20, 20]), order), torch.arange(80), 5)
    source = streamed(records, order, bad=bad(tmp_path, 40, told))
    found = seen(source, torch.arange(80), 5)
    instead = {24: 26, 25: 26, 39: 20}
    assert found == [instead.get(number, number) for number in good]
    rows = [json.loads(line) for line in (tmp_path / "bad-samples.jsonl").read_text().splitlines()]
    assert sorted(row["where"] for row in rows) == [f"s3://bucket/001.tar/{row}" for row in (19, 4, 5)]
    whys = [f"{row} is not a readable image: no image format that Pillow knows" for row in (4, 5)]
    assert {row["why"] for row in rows} == {"a member is cut short", *whys}
    assert len(told) == 1
    assert "data.onBadSample is skip" in told[0]
    # One worker, or one batch at a time, finds the same.
    pieces = streamed(records, order, bad=bad(tmp_path, 40))
    assert [number for start in range(60, -1, -20) for number in seen(pieces, torch.arange(start, start + 20), 5)] == [
        number for start in range(60, -1, -20) for number in found[start : start + 20]
    ]
    assert len((tmp_path / "bad-samples.jsonl").read_text().splitlines()) == 3  # named once


def test_more_than_ten_of_a_few_end_the_run(tmp_path: Path) -> None:
    for count, passes in ((10, True), (11, False)):
        source = streamed(Pictures([200], broken=set(range(count))), Order(), bad=bad(tmp_path, 200))
        if passes:
            assert len(seen(source, torch.arange(200))) == 200
            continue
        with pytest.raises(JobError) as caught:
            seen(source, torch.arange(200))
        assert caught.value.code == "GTJ0113"
        assert "too many samples cannot be read (s3://bucket/data): 11 of 200 that were looked at" in caught.value.line()
        assert "bad-samples.jsonl" in caught.value.how


def test_more_than_one_in_a_hundred_ends_the_run(tmp_path: Path) -> None:
    watch = bad(tmp_path, 5000)
    for row in range(20):
        watch.add((0, row), JobError("GTJ0113", "no image", where=f"{row}"))
        if row == 9:
            watch.saw(1000)
    watch.saw(1000)
    watch.add((0, 20), JobError("GTJ0113", "no image", where="20"))
    with pytest.raises(JobError, match=r"21 of 2,000 that were looked at, and data.onBadSample: skip leaves out 1% at most"):
        watch.saw(0)


def test_samples_seen_again_do_not_dilute_the_bad_ones(tmp_path: Path) -> None:
    watch = bad(tmp_path, 100)
    for row in range(11):
        watch.add((0, row), JobError("GTJ0113", "no image", where=f"{row}"))
    with pytest.raises(JobError, match="11 of 100 that were looked at"):
        watch.saw(100_000)


def test_a_hundred_are_named_and_all_are_counted(tmp_path: Path) -> None:
    watch = bad(tmp_path, 10**6)
    for row in range(150):
        watch.add((0, row), JobError("GTJ0113", "no image", where=f"{row}"))
    assert len((tmp_path / "bad-samples.jsonl").read_text().splitlines()) == NAMED
    assert (0, 149) in watch


def test_a_block_without_a_good_sample_is_an_error(tmp_path: Path) -> None:
    source = streamed(Pictures([5, 100], broken=range(5)), Order(), bad=bad(tmp_path, 105))
    with pytest.raises(JobError, match=r"GTJ0113 a part of the data is broken \(000.tar\): none of its 5 samples can be read"):
        seen(source, torch.arange(105))


def test_what_is_refused_is_no_bad_sample(tmp_path: Path) -> None:
    class Refused(Pictures):
        def read(self, shelf, block, rows, columns):  # type: ignore[no-untyped-def]
            raise JobError("GTJ0112", "GET was refused", where="s3://bucket")

    with pytest.raises(JobError, match="GTJ0112"):
        seen(streamed(Refused([5]), Order(), bad=bad(tmp_path, 5)), torch.arange(5))
