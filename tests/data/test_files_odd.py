"""Whatever lies in a data folder: it is read, or refused by a JobError that can be printed. Nothing hangs, nothing is a defect of ours."""

from __future__ import annotations

import json
import os
import random
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.uris import file_uri
from trainjobs.data import open_source, preflight

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning:PIL")]

Make = Callable[..., Spec]
COUNT = 300
FORMATS = {
    "png": "PNG",
    "jpg": "JPEG",
    "jfif": "JPEG",
    "gif": "GIF",
    "bmp": "BMP",
    "tif": "TIFF",
    "webp": "WEBP",
    "ppm": "PPM",
    "pgm": "PPM",
}


def name(rng: random.Random) -> bytes:
    """Any bytes that a file may be called by, more often than not odd ones."""
    odd = [
        b"a",
        b" ",
        b"%41",
        b"#",
        b"?",
        b"~",
        b"\xff",
        b"\xe9",
        b"\n",
        b"\x1b[31m",
        b"'",
        b'"',
        b"\\",
        "é".encode(),
        "\u202e".encode(),
        b"$x",
    ]
    return b"".join(rng.choices(odd, k=rng.randint(1, 6)))


def damaged(rng: random.Random, good: bytes) -> bytes:
    at = rng.randrange(len(good) + 1)
    kind = rng.randrange(6)
    if kind == 0:
        return good
    if kind == 1:
        return good[:at]
    if kind == 2:
        return good[:at] + rng.randbytes(rng.randint(1, 30)) + good[at + 1 :]
    if kind == 3:
        return good + rng.randbytes(100)
    return rng.randbytes(rng.randint(0, 200)) if kind == 4 else b""


def picture(rng: random.Random, path: Path, suffix: str) -> bytes:
    mode = rng.choice(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I;16", "I;16B", "I", "F"])
    width, height = rng.choice([(1, 1), (9, 7), (1, 300), (300, 1), (8, 8)])
    if mode in ("I", "F", "I;16"):
        top = rng.choice([0, 1, 1, 255, 4095, 65535, 1e9, -1, float("nan")])
        kind = {"I": np.int32, "F": np.float32, "I;16": np.uint16}[mode]
        with np.errstate(invalid="ignore"):
            image = Image.fromarray((np.random.default_rng(rng.randrange(99)).random((height, width)) * top).astype(kind))
    else:
        image = Image.new("RGB", (width, height), tuple(rng.choices(range(256), k=3)))
        try:
            image = image.convert(mode)
        except ValueError:
            image = Image.new(mode, (width, height))
    extras = [{}, {"icc_profile": rng.randbytes(200)}, {"exif": rng.randbytes(40)}, {"transparency": rng.choice([0, 5, b"\0\1"])}]
    try:
        image.save(path, FORMATS[suffix], **rng.choice(extras))
    except (OSError, ValueError, TypeError, KeyError, struct.error, SystemError, SyntaxError):  # a format takes some modes only
        Image.new("RGB", (width, height), "red").save(path, FORMATS[suffix])
    return path.read_bytes()


def bomb() -> bytes:
    """A small PNG of 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", b"")
        + chunk(b"IEND", b"")
    )


def text(rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return b"some text\n" * 40
    good = rng.choice([b"some text\n" * 40, "größer als 北\r\n".encode() * 30, "x".encode("utf-16") * 40, "naïve ".encode("latin-1") * 40])
    return damaged(rng, good)


def records(rng: random.Random) -> bytes:
    if rng.random() < 0.4:
        return b'{"text": "some text, some text, some text"}\n' * 9
    values: list[object] = ["text " * 50, "", 5, 1e400, None, True, [], {}, "\ud800", "\0", {"text": "x"}, [[["x"]]]]
    rows = [json.dumps({rng.choice(["text", "text", "text", "txt", "\ud800"]): rng.choice(values)}) for _ in range(rng.randint(1, 8))]
    rows += rng.choices(
        ["", "null", "[" * 3000 + "]" * 3000, '{"text": ' + "[" * 900 + "]" * 900 + "}", "9" * 5000, "{", '{"text": "\\ud800"}'], k=1
    )
    rng.shuffle(rows)
    return damaged(rng, "\n".join(rows).encode("utf-8", "surrogatepass"))


def special(rng: random.Random, path: Path) -> None:
    kind = rng.choice(["pipe", "socket", "loop", "nowhere", "device", "zero", "unreadable", "folder"])
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket" and len(os.fsencode(path)) < 100:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(os.fsencode(path))
    elif kind == "folder":
        path.mkdir()
    else:
        target = {"loop": path.parent, "nowhere": path.with_name("gone"), "device": "/dev/null", "zero": "/dev/zero"}.get(kind, path)
        path.symlink_to(target)


def cases(
    rng: random.Random, top: Path, suffixes: list[str], content: Callable[[Path, str], bytes]
) -> Iterator[tuple[int, Path, list[Path]]]:
    for number in range(COUNT):
        folder = top / os.fsdecode(b"%03d " % number + name(rng))
        folder.mkdir()
        made = []
        for _ in range(rng.randint(1, 3)):
            suffix = rng.choice(suffixes)
            path = folder / os.fsdecode(name(rng) + b"." + suffix.encode())
            if os.path.lexists(path):
                continue
            if rng.random() < 0.2:
                special(rng, path)
            else:
                data = content(top / "scratch", suffix)
                path.write_bytes(data)
                made.append(path)
        yield number, folder, made


def refused(attempt: Callable[[], object]) -> JobError | None:
    try:
        attempt()
    except JobError as error:
        return error
    return None


def reads(spec: Spec, cache: Path) -> bool:
    """Whether it was read; if not, that it was refused in words that everything can print, beforehand as well as later."""
    early, late = refused(lambda: preflight(spec).encode()), refused(lambda: open_source(spec, cache))
    for error in filter(None, (early, late)):
        assert error.code in ("GTJ0113", "GTJ0108"), "no column of a known name, or data that cannot be read"
        assert error.how
        assert "\x1b" not in json.dumps(error.to_dict(), ensure_ascii=False).encode().decode()
    assert (early is None) == (late is None)
    return late is None


def test_pictures(job: Make, tmp_path: Path) -> None:
    rng = random.Random(1)

    def content(scratch: Path, suffix: str) -> bytes:
        return bomb() if rng.random() < 0.03 else damaged(rng, picture(rng, scratch, suffix))

    read = 0
    for number, folder, _ in cases(rng, tmp_path, list(FORMATS), content):
        spec = job("gan", file_uri(str(folder)), images={"size": 8, "channels": rng.choice([1, 3])}, holdout=0)
        read += reads(spec, tmp_path / f"cache-{number}")
    assert COUNT * 0.1 < read < COUNT * 0.9, "some of each"


@pytest.mark.parametrize("family", ["language", "custom"])
def test_texts(family: str, job: Make, tmp_path: Path) -> None:
    rng = random.Random(2)
    read = 0
    options = {"language": {"network": {"contextLength": 8}}, "custom": {"objective": "package.module:build"}}[family]
    suffixes = ["txt", "md", "py", "jsonl", "jsonl"]

    def content(scratch: Path, suffix: str) -> bytes:
        return records(rng) if suffix == "jsonl" else text(rng)

    for number, folder, made in cases(rng, tmp_path, suffixes, content):
        source = rng.choice(made) if made and rng.random() < 0.2 else folder
        read += reads(job(family, file_uri(str(source)), options, holdout=0), tmp_path / f"cache-{number}")
    assert COUNT * 0.1 < read < COUNT * 0.9, "some of each"
