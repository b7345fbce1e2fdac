"""Folders of images, made here with Pillow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.data.positions import SEED, shown
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import images, open_source, tables
from trainjobs.data.pictures import Picture
from trainjobs.data.streamed import StreamedImages
from trainjobs.noise import Noise

Make = Callable[..., Spec]
RNG = np.random.default_rng(0)


def random(width: int, height: int, channels: int = 3) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def folder(path: Path, count: int = 6, size: int = 8) -> Path:
    for number in range(count):
        place = path / ("even" if number % 2 == 0 else "odd")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random(size, size)).save(place / f"{number:03}.png")
    return path


def opened(job: Make, path: Path, cache: Path, **data: object):  # type: ignore[no-untyped-def]
    return open_source(job("vae", f"file://{path}", **({"images": {"size": 8}, "holdout": 0} | data)), cache)


def noise(count: int, step: int = 0) -> Noise:
    return Noise.of(0, step, "train", torch.arange(count))


def test_pixels_are_the_files(job: Make, tmp_path: Path) -> None:
    path = folder(tmp_path / "data")
    source = opened(job, path, tmp_path / "cache")
    assert (source.info.length, source.info.heldout, source.info.shape) == (6, 0, (3, 8, 8))
    batch = source.batch(shown(source, torch.arange(6)), SEED, noise(6))["image"]
    names = ["even/000", "even/002", "even/004", "odd/001", "odd/003", "odd/005"]
    for row, name in zip(batch, names, strict=True):
        expected = np.asarray(Image.open(path / f"{name}.png")).transpose(2, 0, 1) / 127.5 - 1
        np.testing.assert_allclose(row.numpy(), expected, atol=1e-6)


def test_the_middle_is_kept(tmp_path: Path) -> None:
    pixels = random(20, 8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    np.testing.assert_array_equal(images.decode(tmp_path / "wide.png", 8, 3), pixels[:, 6:14].transpose(2, 0, 1))
    Image.fromarray(pixels.transpose(1, 0, 2)).save(tmp_path / "tall.png")
    np.testing.assert_array_equal(images.decode(tmp_path / "tall.png", 8, 3), pixels.transpose(1, 0, 2)[6:14].transpose(2, 0, 1))


def test_large_images_are_averaged_not_sampled(tmp_path: Path) -> None:
    """A fine checkerboard becomes grey. Taking every n-th pixel would give black or white."""
    board = np.indices((256, 256)).sum(0) % 2 * 255
    Image.fromarray(board.astype(np.uint8)).save(tmp_path / "board.png")
    small = images.decode(tmp_path / "board.png", 8, 1)
    assert abs(small.astype(float) - 127.5).max() < 8


def test_grey_is_pillows(tmp_path: Path) -> None:
    Image.fromarray(pixels := random(8, 8)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(images.decode(tmp_path / "a.png", 8, 1)[0], np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_is_read(mode: str, channels: int, tmp_path: Path) -> None:
    """A white image is white however it is stored."""
    white = {"I;16": 65535, "I": 65535, "F": 255.0}.get(mode)
    image = Image.new(mode, (12, 12), white if white is not None else "white")
    if mode == "CMYK":
        image = Image.new(mode, (12, 12), (0, 0, 0, 0))
    path = tmp_path / ("a.tiff" if mode in ("CMYK", "F", "I") else "a.png")
    image.save(path)
    decoded = images.decode(path, 8, channels)
    assert decoded.shape == (channels, 8, 8)
    assert decoded.min() == 255


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.png")
    np.testing.assert_allclose(images.decode(tmp_path / "a.png", 8, 1)[0], values / 257, atol=1.5)


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.png")
    assert images.decode(tmp_path / "a.png", 8, 3).min() == 255


def test_photographs_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: the camera was turned, rotate 90 degrees clockwise to view
    pixels = random(8, 8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(images.decode(tmp_path / "a.png", 8, 3), np.rot90(pixels, -1).transpose(2, 0, 1))


def test_large_jpegs_look_as_without_the_shortcut(tmp_path: Path) -> None:
    smooth = Image.fromarray(random(6, 6)).resize((600, 480), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.jpg", quality=95)
    smooth.save(tmp_path / "a.png")
    difference = images.decode(tmp_path / "a.jpg", 16, 3).astype(int) - images.decode(tmp_path / "a.png", 16, 3)
    assert abs(difference).mean() < 2


def test_hidden_files_and_other_files_are_left_out_and_links_followed(job: Make, tmp_path: Path) -> None:
    path = folder(tmp_path / "data", count=2)
    (path / "._000.png").write_bytes(b"what a Mac leaves behind")
    (path / ".thumbnails").mkdir()
    (path / ".thumbnails" / "x.png").write_bytes(b"no image")
    (path / "README.txt").write_text("two images")
    Image.fromarray(random(8, 8)).save(path / "UPPER.PNG")
    (path / "again").symlink_to(path)  # a loop
    elsewhere = folder(path / ".elsewhere", count=1)
    (path / "link").symlink_to(elsewhere)
    assert opened(job, path, tmp_path / "cache").info.length == 4


def test_a_folder_is_decoded_once_until_it_changes(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    read = images.read

    def counted(data: bytes, size: int, channels: int, where: str) -> Picture:
        calls.append(where)
        return read(data, size, channels, where)

    monkeypatch.setattr(tables, "read", counted)
    path, cache = folder(tmp_path / "data"), tmp_path / "cache"

    def times(**data: object) -> int:
        calls.clear()
        opened(job, path, cache, **data)
        return len(calls)

    assert times() == 6
    assert times() == 0
    assert times(images={"size": 8, "augment": ["horizontalFlip"]}) == 0
    assert times(images={"size": 16}) == 6
    assert times(images={"size": 8, "channels": 1}) == 6
    Image.fromarray(random(8, 8)).save(path / "even" / "000.png")
    assert times() == 6
    (path / "odd" / "001.png").unlink()
    assert times() == 5
    assert not list(cache.glob("*.partial"))


def test_flips_are_half_mirrored_and_follow_the_noise(job: Make, tmp_path: Path) -> None:
    path = folder(tmp_path / "data", count=1)
    still = opened(job, path, tmp_path)
    plain = still.batch(shown(still, torch.zeros(400, dtype=torch.int64)), SEED, noise(400))["image"]
    source = opened(job, path, tmp_path, images={"size": 8, "augment": ["horizontalFlip"]})
    batch = source.batch(shown(source, torch.zeros(400, dtype=torch.int64)), SEED, noise(400))["image"]
    same = (batch == plain).flatten(1).all(1)
    mirrored = (batch == plain.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 150 < same.sum() < 250
    part = source.batch(shown(source, torch.zeros(100, dtype=torch.int64)), SEED, Noise.of(0, 0, "train", torch.arange(100, 200)))["image"]
    assert torch.equal(part, batch[100:200])
    assert not torch.equal(source.batch(shown(source, torch.zeros(400, dtype=torch.int64)), SEED, noise(400, step=1))["image"], batch)


def test_heldout_images_are_not_flipped(job: Make, tmp_path: Path) -> None:
    path = folder(tmp_path / "data", count=8)
    flips = opened(job, path, tmp_path, images={"size": 8, "augment": ["horizontalFlip"]}, holdout=0.5)
    plain = opened(job, path, tmp_path, holdout=0.5)
    held = torch.arange(plain.info.heldout)
    assert len(held) >= 1
    assert torch.equal(flips.heldout_batch(held)["image"], plain.heldout_batch(held)["image"])


def test_what_is_too_much_to_decode_at_once_is_the_same_samples(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training samples with their augmentations, and held-out ones without any."""
    path = folder(tmp_path / "data", count=12)
    asked = {"images": {"size": 8, "augment": ["horizontalFlip", "rotation", "colorJitter"]}, "holdout": 0.4}
    once = opened(job, path, tmp_path, **asked)
    monkeypatch.setattr(tables, "AT_ONCE", 0)
    beside = opened(job, path, tmp_path, **asked)
    assert isinstance(beside, StreamedImages)
    assert not isinstance(once, StreamedImages)
    assert (once.info.length, once.info.heldout) == (beside.info.length, beside.info.heldout)
    positions = torch.arange(2 * once.info.length + 1)
    drawn = Noise.of(0, 0, "train", positions)
    assert torch.equal(once.batch(positions, SEED, drawn)["image"], beside.batch(positions, SEED, drawn)["image"])
    held = torch.arange(once.info.heldout)
    assert torch.equal(once.heldout_batch(held)["image"], beside.heldout_batch(held)["image"])


def test_changing_a_batch_changes_nothing_else(job: Make, tmp_path: Path) -> None:
    for source in (
        opened(job, folder(tmp_path / "data"), tmp_path),
        open_source(job("vae", "builtin:digits", images={"size": 8}), tmp_path),
    ):
        before = source.batch(shown(source, torch.arange(3)), SEED, noise(3))["image"].clone()
        source.batch(shown(source, torch.arange(3)), SEED, noise(3))["image"].clone().zero_()
        image = source.batch(shown(source, torch.arange(3)), SEED, noise(3))["image"]
        image[:, 0] += 1
        assert torch.equal(source.batch(shown(source, torch.arange(3)), SEED, noise(3))["image"], before)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300), st.sampled_from([".png", ".jpg", ".gif", ".bmp", ".webp", ".tif"]))
def test_broken_files_are_always_a_job_error(tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, suffix: str) -> None:
    path = tmp_path_factory.mktemp("broken") / f"a{suffix}"
    Image.fromarray(random(10, 10)).save(path)
    good = path.read_bytes()
    path.write_bytes(good[:at] + junk)
    raised: JobError | None = None
    try:
        assert images.decode(path, 8, 3).shape == (3, 8, 8)
    except JobError as error:
        raised = error
    assert raised is None or (raised.code, raised.where) == ("GTJ0113", str(path))
