"""What is told of a folder of pictures, and what is refused: nothing that changes the pixels is silent."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, features

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import first_look, images, open_source, preflight
from trainjobs.data.forms.recognise import SUFFIXES

Make = Callable[..., Spec]
RNG = np.random.default_rng(0)


def noise(size: int = 8) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (size, size, 3), dtype=np.uint8))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.mkdir()
    for number in range(2):
        noise().save(path / f"{number}.png")
    return path


def line(job: Make, path: Path) -> str:
    return preflight(job("gan", f"file://{path}"))


def refusal(job: Make, path: Path, cache: Path) -> str:
    """Of looking at it beforehand, and of opening it: the same."""
    spec = job("gan", f"file://{path}")
    with pytest.raises(JobError) as early:
        preflight(spec)
    with pytest.raises(JobError) as late:
        open_source(spec, cache)
    assert early.value.line() == late.value.line()
    assert early.value.code == "GTJ0113"
    return early.value.line()


def test_formats_that_are_left_out_are_counted(data: Path, job: Make) -> None:
    for name in ("a.heic", "b.HEIC", "c.txt", "d"):
        (data / name).write_bytes(b"x")
    assert line(job, data) == "2 images, 32x32 colour; 2 .heic, 1 .txt, 1 no suffix left out"


def test_many_kinds_are_summed_up(data: Path, job: Make) -> None:
    for number in range(8):
        (data / f"a.x{number}").write_bytes(b"x")
    assert line(job, data).endswith("; 1 .x0, 1 .x1, 1 .x2, 1 .x3, 1 .x4, 3 of other kinds left out")


@pytest.mark.parametrize("name", ["@eaDir", ".thumbnails", "__MACOSX", ".git", "#recycle", "lost+found"])
def test_folders_of_a_file_manager_are_no_pictures_and_said_so(name: str, data: Path, job: Make) -> None:
    (data / name).mkdir()
    noise().save(data / name / "0.png")
    assert line(job, data) == f"2 images, 32x32 colour; folder {name} left out"


def test_hidden_pictures_are_said_to_be_left_out(data: Path, job: Make) -> None:
    (data / "._0.png").write_bytes(b"what a Mac leaves behind")
    (data / ".DS_Store").write_bytes(b"")
    assert line(job, data) == "2 images, 32x32 colour; 1 hidden .png left out"


def test_avif_and_jfif_are_read_where_pillow_can(data: Path, job: Make) -> None:
    noise().save(data / "a.jfif", format="JPEG")
    assert line(job, data) == "3 images, 32x32 colour"
    if not features.check("avif"):
        pytest.skip("this Pillow comes without AVIF")
    noise().save(data / "b.avif")
    assert line(job, data) == "4 images, 32x32 colour"


def test_a_format_that_pillow_was_built_without_is_left_out_and_said_so(data: Path, job: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    noise().save(data / "b.webp")
    monkeypatch.setitem(SUFFIXES, "images", tuple(suffix for suffix in images.SUFFIXES if suffix != ".webp"))
    assert line(job, data) == "2 images, 32x32 colour; 1 .webp left out"


@pytest.mark.parametrize(("value", "words"), [(0, "black"), (255, "white"), (77, "the one grey of 77")])
def test_a_folder_of_one_constant_is_refused(value: int, words: str, job: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(3):
        Image.new("L", (8, 8), value).save(tmp_path / "data" / f"{number}.png")
    message = refusal(job, tmp_path / "data", tmp_path / "cache")
    assert f"there is nothing to learn from the pictures (file://{tmp_path}/data): every pixel of every picture" in message
    assert f"is {words}" in message


def test_float_pictures_say_their_scale(job: Make, tmp_path: Path) -> None:
    for number in range(3):
        Image.fromarray(RNG.random((8, 8)).astype(np.float32) * 0.9 + 0.05).save(tmp_path / f"{number}.tif")
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "black.tif")
    assert line(job, tmp_path).startswith("4 images, 32x32 colour; 3 float, scaled from 0 to 1 (the brightest value is 0.9")


def test_float_pictures_on_two_scales_are_refused(job: Make, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, white in enumerate((1, 1, 255)):
        Image.fromarray(np.linspace(0, white, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "data" / f"{number}.tif")
    message = refusal(job, tmp_path / "data", tmp_path / "cache")
    assert f"two float pictures are on different scales ({tmp_path}/data/2.tif): its values reach 255, so white is 255; in 0.tif" in message


def test_sixteen_bits_say_how_bright_they_are(data: Path, job: Make) -> None:
    Image.fromarray(np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)).save(data / "a.png")
    assert line(job, data) == "3 images, 32x32 colour; 1 16-bit, scaled from 0 to 65535 (the brightest value is 4095)"


def test_of_a_large_folder_it_says_how_many_were_looked_at(job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_look, "CHECKED", 3)
    for number in range(6):
        Image.fromarray((RNG.random((8, 8)) * 65535).astype(np.uint16)).save(tmp_path / f"{number}.png")
    assert line(job, tmp_path).startswith("6 images, 32x32 colour; of 3 looked at; 3 16-bit, scaled from 0 to 65535")


def test_a_picture_over_the_pixel_limit_is_told_as_that(data: Path, job: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    noise(size=16).save(data / "large.png")
    message = refusal(job, data, tmp_path / "cache")
    assert f"large.png is too large to be decoded ({data}/large.png): Image size (256 pixels) exceeds limit of 200 pixels" in message
    assert "scale it down" in message


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_pictures_is_taken_and_that_is_said(suffix: str, data: Path, job: Make) -> None:
    first = noise().quantize(16).convert("RGB")
    first.save(data / f"a.{suffix}", save_all=True, append_images=[noise()], **({"lossless": True} if suffix == "webp" else {}))
    assert line(job, data) == "3 images, 32x32 colour; of 1 with several pictures the first"
    np.testing.assert_array_equal(images.decode(data / f"a.{suffix}", 8, 3), np.asarray(first).transpose(2, 0, 1))


def profile(kind: str) -> bytes:
    """Of Adobe RGB's like: red and green are swapped, so that nobody takes it for sRGB."""
    if kind == "sRGB":
        return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    raw = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(raw[128:132], "big")
    tags = {bytes(raw[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    raw[red + 4 : red + 12], raw[green + 4 : green + 12] = raw[green + 4 : green + 12], raw[red + 4 : red + 12]
    return bytes(raw).replace("sRGB".encode("utf-16-be"), "odd!".encode("utf-16-be")).replace(b"sRGB", b"odd!")


def test_icc_profiles_are_converted_to_srgb(data: Path, job: Make) -> None:
    odd = profile("odd")
    assert "sRGB" not in ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(odd)))
    Image.new("RGB", (8, 8), (255, 0, 0)).save(data / "a.png", icc_profile=odd)
    assert line(job, data) == "3 images, 32x32 colour; 1 converted to sRGB by their ICC profiles"
    assert images.decode(data / "a.png", 8, 3)[:, 0, 0] == pytest.approx([0, 255, 0], abs=2)


def test_srgbs_own_profile_changes_nothing(data: Path, job: Make) -> None:
    picture = noise()
    picture.save(data / "a.png", icc_profile=profile("sRGB"))
    assert line(job, data) == "3 images, 32x32 colour"
    np.testing.assert_array_equal(images.decode(data / "a.png", 8, 3), np.asarray(picture).transpose(2, 0, 1))


def test_profiles_that_cannot_be_used_are_said_to_be_ignored(data: Path, job: Make) -> None:
    noise().save(data / "a.png", icc_profile=b"no profile at all")
    noise().convert("L").save(data / "b.png", icc_profile=profile("odd"))  # of colours, in a grey picture
    assert line(job, data) == "4 images, 32x32 colour; ICC profiles of 2 ignored, as they cannot be used"
