"""Every mode of Pillow has a row: what becomes of it, or why it is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from trainjobs.api.errors import JobError
from trainjobs.data import images, modes
from trainjobs.data.modes import MODES, Unusable, flat, scale

RAMP = np.linspace(0, 1, 64).reshape(8, 8)
WANTED = np.rint(RAMP * 255)


def of(array: np.ndarray, path: Path, **tags: Any) -> Path:
    image = Image.fromarray(array)
    image.save(path, **tags)
    return path


def test_every_mode_of_pillow_has_a_row() -> None:
    assert set(MODES) == {*Image.MODES, "I;16L", "I;16B", "I;16N"}


def white(mode: str) -> Image.Image:
    values = {"CMYK": (0, 0, 0, 0), "YCbCr": (255, 128, 128), "HSV": (0, 0, 255), "LAB": (255, 128, 128), "F": 1.0, "I": 255, "1": 1}
    bands = Image.getmodebands(mode) if not mode.startswith("I;16") else 1
    if mode == "PA":
        return Image.new("RGBA", (4, 4), "white").convert("PA")
    return Image.new(mode, (4, 4), values.get(mode, 65535 if mode.startswith("I;16") else (255,) * bands if bands > 1 else 255))


@pytest.mark.parametrize("mode", sorted(set(MODES) - {"P"}))
def test_white_is_white_and_black_is_black_in_every_mode(mode: str) -> None:
    image = white(mode)
    made = np.asarray(flat(image, image).image.convert("RGB"))
    assert made.min() >= 253, "LAB rounds"
    black = Image.new(mode, (4, 4), {"CMYK": (0, 0, 0, 255), "YCbCr": (0, 128, 128), "LAB": (0, 128, 128)}.get(mode, 0))
    if mode in ("LA", "RGBA", "La", "RGBa", "PA"):  # no opacity: nothing of it is seen
        assert np.asarray(flat(black, black).image.convert("RGB")).min() == 255
    else:
        assert np.asarray(flat(black, black).image.convert("RGB")).max() <= 2


def test_a_palette_is_looked_up() -> None:
    image = Image.new("RGB", (4, 4), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    assert image.mode == "P"
    assert flat(image, image).image.getpixel((0, 0)) == (10, 200, 30)


def test_an_unknown_mode_is_refused() -> None:
    class Strange:
        mode = "BGR;15"

    with pytest.raises(Unusable, match="its mode is BGR;15, which is not read"):
        flat(Strange(), Strange())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("array", "deep", "scale"),
    [
        (RAMP.astype(np.float32), "float", 1),
        ((RAMP * 255).astype(np.float32), "float", 255),
        ((RAMP * 65535).astype(np.float32), "float", 65535),
        ((RAMP * 255).astype(np.int32), "32-bit integer", 255),
        ((RAMP * 65535).astype(np.int32), "32-bit integer", 65535),
        ((RAMP * (2**31 - 1)).astype(np.int32), "32-bit integer", 2**31 - 1),
        ((RAMP * 65535).astype(np.uint16), "16-bit", 65535),
    ],
)
def test_deep_tiffs_are_scaled_and_say_by_what(array: np.ndarray, deep: str, scale: int, tmp_path: Path) -> None:
    picture = images.read(of(array, tmp_path / "a.tif"), 8, 1)
    np.testing.assert_allclose(picture.pixels[0], WANTED, atol=1)
    assert (picture.deep, picture.white) == (deep, scale)
    assert picture.brightest == pytest.approx(float(array.max()))


@pytest.mark.parametrize("suffix", ["png", "pgm"])
def test_sixteen_bits_of_png_and_pgm_are_those_of_the_format_however_dark(suffix: str, tmp_path: Path) -> None:
    picture = images.read(of((RAMP * 4095).astype(np.uint16), tmp_path / f"a.{suffix}"), 8, 1)
    np.testing.assert_allclose(picture.pixels[0], RAMP * 4095 / 257, atol=1)
    assert (picture.deep, picture.white, picture.brightest) == ("16-bit", 65535, 4095)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (np.full((8, 8), np.nan, np.float32), "no finite numbers"),
        (np.full((8, 8), np.inf, np.float32), "no finite numbers"),
        ((RAMP * 2 - 1).astype(np.float32), "its values are -1 to 1, and what is below 0 has no colour"),
        ((RAMP * 3).astype(np.float32), "its values are 0 to 3, on none of the usual scales (0 to 1, 0 to 255, 0 to 65535)"),
        ((RAMP * 1e6).astype(np.float32), "on none of the usual scales"),
        ((RAMP > 0.5).astype(np.int32), "its values are 0 to 1, on none of the usual scales (0 to 255, 0 to 65535, 0 to 2147483647)"),
        (-np.ones((8, 8), np.int32), "below 0"),
    ],
)
def test_numbers_that_mean_nothing_certain_are_refused(array: np.ndarray, why: str, tmp_path: Path) -> None:
    with pytest.raises(JobError) as raised:
        images.read(of(array, tmp_path / "a.tif"), 8, 1)
    line = raised.value.line()
    assert line.startswith(f"GTJ0113 a.tif cannot be told in colours ({tmp_path}/a.tif)")
    assert why in line
    assert f"(its mode is {Image.fromarray(array).mode})" in line


@pytest.mark.parametrize("kind", ["float", "integer"])
def test_a_scale_is_chosen_from_a_sixteenth_of_its_white_on(kind: Any) -> None:
    for bound in modes.SCALES[kind]:
        assert scale(0, bound, kind, "F") == bound
        assert scale(0, bound / 16, kind, "F") == bound
    assert scale(0, 0, kind, "F") == 0


def test_a_tiff_whose_white_is_zero_is_turned_over(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    path = of((RAMP * 65535).astype(np.uint16), tmp_path / "a.tif", tiffinfo=tags)
    np.testing.assert_allclose(images.read(path, 8, 1).pixels[0], 255 - WANTED, atol=1)


def test_of_sixteen_bits_a_channel_the_upper_eight_are_read(tmp_path: Path) -> None:
    """Pillow writes none, so this one is put together by hand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    row = b"\0" + struct.pack(">24H", *([0x1234, 0xABCD, 0xFFFF] * 8))
    head = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    assert images.decode(tmp_path / "a.png", 8, 3)[:, 3, 3].tolist() == [0x12, 0xAB, 0xFF]


def test_twelve_bits_of_a_tiff_are_scaled_by_4095(tmp_path: Path) -> None:
    """One row of 0, 0, 4095, 4095, ... packed by hand: Pillow reads them and does not write them."""
    pixels = bytes([0, 0, 0, 0xFF, 0xFF, 0xFF] * 2) * 8
    entries = [
        (256, 3, 8),
        (257, 3, 8),
        (258, 3, 12),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, 8),
        (279, 4, len(pixels)),
    ]
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    raw = b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + struct.pack("<H", len(entries)) + table + struct.pack("<I", 0)
    (tmp_path / "a.tif").write_bytes(raw)
    picture = images.read(tmp_path / "a.tif", 8, 1)
    assert (picture.deep, picture.white, picture.brightest) == ("16-bit", 4095, 4095)
    assert picture.pixels[0, 0].tolist() == [0, 0, 255, 255, 0, 0, 255, 255]


def test_what_a_deep_png_calls_transparent_is_white(tmp_path: Path) -> None:
    values = (RAMP * 65535).astype(np.uint16)
    path = of(values, tmp_path / "a.png", transparency=int(values[0, 0]))
    pixels = images.read(path, 8, 1).pixels[0]
    assert pixels[0, 0] == 255
    np.testing.assert_allclose(pixels.ravel()[1:], WANTED.ravel()[1:], atol=1)


def test_the_page_has_the_modes_of_the_code() -> None:
    page = Path("docs/reference/pictures.md").read_text()
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == list(MODES)
