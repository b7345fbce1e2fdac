"""What people give instead of data: each is told before anything starts, with its code, its exit status and words that help."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.data.places.hub_server import Repository, Server
from tests.data.real import made
from trainjobs.api.codes import CODES
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data import open_source, preflight

Make = Callable[..., Spec]
PICTURE = made.picture(1)


def tar(**members: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def climbing() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("../../evil.png")
        info.size = len(PICTURE)
        archive.addfile(info, io.BytesIO(PICTURE))
    return out.getvalue()


def huge(side: int = 30_000) -> bytes:
    """A PNG of 30,000 x 30,000 black pixels of one bit in a hundred kilobytes, put together without ever holding the picture."""
    row = bytes(1 + side // 8)  # the byte before a row says that it is not filtered
    deflate = zlib.compressobj()
    some = deflate.compress(row * 100) + deflate.flush(zlib.Z_FULL_FLUSH)
    again = deflate.compress(row * 100) + deflate.flush(zlib.Z_FULL_FLUSH)
    rest = zlib.adler32(row * side).to_bytes(4, "big")
    packed = some + again * (side // 100 - 1) + b"\x03\x00" + rest
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", packed), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def wide(columns: int) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({f"c{number}": [1] for number in range(columns)}), out)
    return out.getvalue()


LINE = json.dumps({"text": "Something that is long enough to be learnt from. " * 40})
# By name: family, files, code, words that are in the message.
CASES: Mapping[str, tuple[str, dict[str, bytes], str, tuple[str, ...]]] = {
    "nothing": ("vae", {}, "GTJ0113", ("the folder is empty", "put data there")),
    "mixed forms": ("vae", {"a.tar": tar(a__png=PICTURE), "b.parquet": wide(2)}, "GTJ0113", ("several forms", "data.format")),
    "a shard cut short": ("vae", {"a.tar": tar(a__png=PICTURE * 40)[:3000]}, "GTJ0113", ("a.tar", "cut")),
    "a member without partner": (
        "vae",
        {"a.tar": tar(a__png=PICTURE, a__cls=b"0", b__png=PICTURE, b__cls=b"1", c__png=PICTURE)},
        "GTJ0113",
        ("cls", "a.tar"),
    ),
    "an archive that climbs": ("vae", {"a.tar": climbing()}, "GTJ0113", ("../../evil.png",)),
    "not UTF-8": ("language", {"a.txt": b"good\n" * 200 + b"b\xe4d\n"}, "GTJ0113", ("a.txt is not UTF-8 text", "a.txt:201", "0xe4")),
    "another schema": ("language", {"a.jsonl": f'{LINE}\n{LINE}\n{{"txt": 1}}\n'.encode()}, "GTJ0113", ("a.jsonl:3", "text")),
    "no JSON": ("language", {"a.jsonl": f"{LINE}\n{{oops\n".encode()}, "GTJ0113", ("the line is not JSON", "a.jsonl:2")),
    "HTML called .jpg": ("vae", {"a.jpg": b"<html>404</html>", "b.png": PICTURE}, "GTJ0113", ("a.jpg is not a readable image",)),
    "too many pixels": ("vae", {"a.png": huge(), "b.png": PICTURE}, "GTJ0113", ("a.png is too large to be decoded", "scale it down")),
    "too many columns": ("vae", {"a.parquet": wide(10_001)}, "GTJ0113", ("columns",)),
    "a decompression bomb": ("language", {"a.jsonl.gz": gzip.compress(b"\n" * 80_000_000, 9)}, "GTJ0113", ("decompression bomb",)),
    "one sample": ("vae", {"a.png": PICTURE}, "GTJ0113", ("no training samples are left", "data.holdout")),
    "no caption's column": ("vae", {"a.png": PICTURE, "b.png": PICTURE}, "GTJ0102", ("no column title", "image, folder")),
    "text for pictures": ("vae", {"a.txt": b"text"}, "GTJ0113", ("holds no images", ".txt")),
    "pictures for text": ("language", {"a.png": PICTURE}, "GTJ0113", ("holds no text", ".png")),
}


@pytest.mark.parametrize("name", CASES)
def test_it_is_told_before_anything_starts(name: str, job: Make, tmp_path: Path) -> None:
    family, files, code, words = CASES[name]
    folder = tmp_path / "data"
    folder.mkdir()
    for file, data in files.items():
        (folder / file).write_bytes(data)
    more: dict[str, Any] = {"columns": {"caption": "title"}} if name == "no caption's column" else {}
    with pytest.raises(JobError) as error:
        preflight(job(family, f"file://{folder}", **more))
    assert (error.value.code, CODES[error.value.code].exit_code) == (code, 7 if code != "GTJ0102" else 3)
    for word in words:
        assert word in error.value.line()
    assert not list(tmp_path.rglob("*evil*")), "nothing is written"


@pytest.mark.parametrize(
    ("source", "code", "words"),
    [
        ("hf://datasets/org/none", "GTJ0112", ("org/none", "HF_TOKEN")),  # the hub tells nobody without a token whether it is private
        ("hf://datasets/org/faces@gone", "GTJ0113", ("gone",)),
        ("hf://datasets/org/gated", "GTJ0112", ("gated", "HF_TOKEN")),
    ],
)
def test_datasets_of_the_hub(source: str, code: str, words: tuple[str, ...], job: Make, serve: Callable[..., Server]) -> None:
    serve({"org/faces": made.parquets(8, 8), "org/gated": Repository(made.parquets(8, 8), gated=True)})
    with pytest.raises(JobError) as error:
        preflight(job("vae", source))
    assert (error.value.code, CODES[error.value.code].exit_code) == (code, 7)
    for word in words:
        assert word in error.value.line()


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "P", "RGBA", "LA", "1"])
def test_pictures_of_every_mode_and_of_one_pixel_train(mode: str, job: Make, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(4):
        ending = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (9 + number, 12), 1 if mode == "1" else None).save(folder / f"{number}.{ending}")
    Image.new("RGB", (1, 1), "red").save(folder / "point.png")
    (folder / "ramp.png").write_bytes(PICTURE)
    spec = job("vae", f"file://{folder}", images={"size": 8})
    assert preflight(spec).startswith("6 images, 8x8 colour")
    assert open_source(spec, tmp_path / "cache").info.length + open_source(spec, tmp_path / "cache").info.heldout == 6
