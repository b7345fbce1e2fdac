"""Pictures of several shapes: which shapes there are, whose they are, and in which order they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trainjobs.api.buckets import Buckets
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import open_source
from trainjobs.data.bucketed import BucketedImages
from trainjobs.data.buckets import Bucketed, nearest, shapes
from trainjobs.data.images import decode
from trainjobs.data.source import squares
from trainjobs.noise import Noise

# Of each width the most steps of 64 that 64 (256) square ones leave for the height, as kohya's sd-scripts count them for --resolution 512
# and 1024 with --min_bucket_reso half of that and --max_bucket_reso twice. Those for 1024 are all in table 2 of SDXL's paper.
KOHYA = {
    512: "256x1024 256x960 256x896 256x832 320x768 320x704 384x640 448x576 512x512",
    1024: "512x2048 512x1984 512x1920 512x1856 576x1792 576x1728 576x1664 640x1600 640x1536 704x1472 704x1408 768x1344 768x1280 832x1216 "
    "896x1152 960x1088 1024x1024",
}


@pytest.mark.parametrize("size", KOHYA)
def test_shapes_are_those_of_kohya(size: int) -> None:
    listed = {tuple(map(int, shape.split("x"))) for shape in KOHYA[size].split()}
    assert set(shapes(size, Buckets())) == listed | {(b, a) for a, b in listed}


@given(st.integers(1, 16), st.sampled_from([8, 16, 64]), st.integers(0, 3), st.integers(0, 3))
def test_every_shape_fits(size: int, step: int, lower: int, higher: int) -> None:
    side = size * step
    low, high = max(1, size - lower) * step, (size + higher) * step
    found = shapes(side, Buckets(step=step, min_side=low, max_side=high))
    assert (side, side) in found
    assert len(set(found)) == len(found)
    for width, height in found:
        assert width % step == height % step == 0
        assert low <= min(width, height) <= max(width, height) <= high
        assert width * height <= side * side
        assert (height, width) in found


def test_a_picture_goes_to_the_shape_of_the_nearest_ratio_of_its_sides() -> None:
    every = shapes(32, Buckets(step=8))
    assert every == [(16, 64), (16, 56), (16, 48), (24, 40), (32, 32), (40, 24), (48, 16), (56, 16), (64, 16)]
    sizes = np.array([[100, 100], [1000, 100], [100, 1000], [40, 24], [200, 100], [30, 50], [28, 32]])
    # Ratios: 1, 10, 0.1, 1.67, 2 (between 1.67 and 3, nearer to the first), 0.6, 0.875.
    expected = [(32, 32), (64, 16), (16, 64), (40, 24), (40, 24), (24, 40), (32, 32)]
    assert [every[number] for number in nearest(sizes, every)] == expected


def order(which: list[int], unit: int) -> Bucketed:
    return Bucketed(tuple((8 * (number + 1), 8) for number in range(max(which) + 1)), np.array(which, np.int64), unit)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.integers(1, 6), st.integers(0, 5), st.integers(1, 60))
def test_a_unit_is_of_one_shape_and_no_picture_passes_more_often_than_others(which: list[int], unit: int, seed: int, units: int) -> None:
    places = order(which, unit)
    numbers = places.numbers(torch.arange(unit * units), seed)
    for number in range(units):
        own = places.which[numbers[number * unit : (number + 1) * unit]]
        assert len(set(own.tolist())) == 1
        assert places.shape(torch.arange(number * unit, (number + 1) * unit), seed) == places.shapes[own[0]]
    for members in places.members:  # a shape's pictures all pass before one passes again
        passed = Counter(numbers[np.isin(numbers, members)].tolist())
        assert not passed or max(passed.values()) - min(passed[int(one)] for one in members) <= 1


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 4), st.integers(0, 5))
def test_after_as_many_epochs_as_a_unit_has_samples_each_picture_was_seen_as_often(which: list[int], unit: int, seed: int) -> None:
    seen = Counter(order(which, unit).numbers(torch.arange(len(which) * unit), seed).tolist())
    assert seen == dict.fromkeys(range(len(which)), unit)


def test_where_units_fill_the_shapes_an_epoch_has_every_picture_once() -> None:
    places = order([0] * 4 + [1] * 6 + [2] * 2, 2)
    for epoch in range(3):
        found = places.numbers(torch.arange(12 * epoch, 12 * (epoch + 1)), 5)
        assert sorted(found.tolist()) == list(range(12))
    first, second = places.numbers(torch.arange(12), 5), places.numbers(torch.arange(12, 24), 5)
    assert first.tolist() != second.tolist()
    assert [places.shape(torch.arange(2 * n, 2 * n + 2), 5) for n in range(6)] != [
        places.shape(torch.arange(2 * n, 2 * n + 2), 6) for n in range(6)
    ]


def test_the_order_is_a_function_of_the_position_however_it_is_asked_for() -> None:
    places = order([0, 1, 1, 0, 2, 1, 1, 0, 0], 4)
    whole = places.numbers(torch.arange(80), 3)
    parts = [places.numbers(torch.arange(start, start + 2), 3) for start in range(78, -1, -2)]
    assert np.concatenate(parts[::-1]).tolist() == whole.tolist()


def test_a_micro_batch_of_another_size_than_it_began_with_is_refused_by_name() -> None:
    places = order([0, 1, 1, 0], 2)
    with pytest.raises(JobError, match="pictures of several shapes") as refused:
        places.shape(torch.arange(4), 0)
    assert (refused.value.code, refused.value.where) == ("GTJ0103", "training.batch.micro")
    assert "divides 2" in refused.value.how


def test_what_is_said_has_counts() -> None:
    said = order([0] * 5 + [1] * 2 + [2], 2).said
    assert said == (
        "pictures by width x height: 8x8: 5, 16x8: 2, 24x8: 1; 2 fill no micro-batch of 2 in the first epoch, and pass in the next, none "
        "is left out; 1 are of shapes of fewer than 2, whose micro-batches have the same picture more than once"
    )


# --- a folder of them --------------------------------------------------------------------------------------------------------------


def pictures(folder: Path) -> Path:
    """Each shape has its own grey in the middle, and another at what is cropped of it."""
    folder.mkdir()
    for number in range(5):
        Image.new("L", (30, 30), 10 + number).save(folder / f"a{number}.png")
    for number in range(4):
        wide = Image.new("L", (100, 60), 100 + number)  # 5:3, as 40 x 24
        wide.save(folder / f"b{number}.jpg", quality=100)
    tall = Image.new("L", (60, 100), 200)  # on its side, as a camera's: 100 wide
    exif = tall.getexif()
    exif[0x0112] = 6
    tall.save(folder / "c.jpg", exif=exif, quality=100)
    return folder


def opened(job: Callable[..., Spec], folder: Path, cache: Path, micro: int | None = 2, **data: object) -> BucketedImages:
    images = {"size": 32, "channels": 1, "buckets": {"step": 8}}
    spec = job("diffusion", f"file://{folder}", images=images, holdout=0, **data)
    batch = spec.training.batch.model_copy(update={"micro": micro})
    found = open_source(spec.model_copy(update={"training": spec.training.model_copy(update={"batch": batch})}), cache)
    assert isinstance(found, BucketedImages)
    return found


def test_batches_have_the_pictures_of_their_shape_scaled_to_cover_it(job: Callable[..., Spec], tmp_path: Path) -> None:
    source = opened(job, pictures(tmp_path / "data"), tmp_path / "cache")
    assert dict(source.places.filled) == {"32x32": 5, "40x24": 5}
    assert source.info.note.startswith("pictures by width x height: 40x24: 5, 32x32: 5; 2 fill no micro-batch of 2")
    assert source.info.orders == ({"kind": "buckets", "window": 2, "shards": 0},)
    seen: Counter[str] = Counter()
    for start in range(0, 20, 2):
        positions = torch.arange(start, start + 2)
        names = source.names(source.numbers(positions, 0), held=False)
        image = source.batch(positions, 0, Noise.of(0, 0, "train", positions))["image"]
        for row, name in zip(image, names, strict=True):
            size = (32, 32) if Path(name).name.startswith("a") else (40, 24)
            expected = decode(Path(name) if Path(name).exists() else tmp_path / "data" / name, size, 1)
            np.testing.assert_allclose(row.numpy(), expected / 127.5 - 1, atol=1e-6)
            seen[name] += 1
    assert set(seen.values()) == {2}
    square = squares(source).batch(torch.arange(10), 0, Noise.of(0, 0, "x", torch.arange(10)))["image"]
    assert square.shape == (10, 1, 32, 32)
    assert source.plain(torch.arange(10), held=False)["image"].shape == (10, 1, 32, 32)


def test_the_unit_of_a_run_that_goes_on_is_the_one_it_began_with(job: Callable[..., Spec], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data")
    spec = job("diffusion", f"file://{folder}", images={"size": 32, "channels": 1, "buckets": {"step": 8}}, holdout=0)
    first, again = (
        open_source(spec, tmp_path / "cache", orders=orders) for orders in ((), [{"kind": "buckets", "window": 4, "shards": 0}])
    )
    assert isinstance(first, BucketedImages)
    assert isinstance(again, BucketedImages)
    assert (first.places.unit, again.places.unit) == (64, 4)  # the global batch, and what was kept


def test_a_picture_without_a_head_is_named(job: Callable[..., Spec], tmp_path: Path) -> None:
    folder = pictures(tmp_path / "data")
    (folder / "d.png").write_bytes(b"no picture")
    with pytest.raises(JobError, match=r"d\.png is not a readable image") as refused:
        opened(job, folder, tmp_path / "cache")
    assert refused.value.code == "GTJ0113"
