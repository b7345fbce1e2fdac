"""The samples of a run, as data URIs and texts that fit into a report."""

from __future__ import annotations

import base64
import io
import re
import struct
from dataclasses import dataclass, replace
from pathlib import Path

FRAMES = 40
BUDGET = 2_500_000
LARGEST = 400_000
TEXT = 4000
NAME = re.compile(r"step-(\d+)\.(png|txt)")
REBUILT = "reconstructed-{}.png"  # by the digits of the sample's own name
BETWEEN = "between-{}.png"  # likewise


@dataclass(frozen=True)
class Sample:
    """What the model drew at a step: a picture (a data URI, and its width in pixels) or a text. `rebuilt` is another picture: held-out
    samples, and what the model made of them. `between` is one of what lies between two samples."""

    step: int
    picture: str = ""
    width: int = 0
    text: str = ""
    rebuilt: str = ""
    between: str = ""


def samples(folder: Path, frames: int = FRAMES, budget: int = BUDGET) -> list[Sample]:
    """Evenly spaced over the run, first and last always among them, as many as `frames` and `budget` (bytes in the page) allow."""
    files = sorted((int(match[1]), path) for path in listed(folder) if (match := NAME.fullmatch(path.name)))
    while True:
        chosen = [files[index] for index in spread(len(files), frames)]
        found = [with_others(sample, path) for step, path in chosen if (sample := loaded(step, path))]
        if len(found) <= 1 or sum(map(length, found)) <= budget:
            return found
        frames = max(1, frames * 2 // 3)


def real(folder: Path) -> Sample | None:
    """Real samples, to be looked at beside them; None for a run that has not written any."""
    return loaded(0, folder / "real.png") or loaded(0, folder / "real.txt")


def length(sample: Sample) -> int:
    """Bytes of a page that it takes."""
    return len(sample.picture) + len(sample.rebuilt) + len(sample.between) + len(sample.text)


def with_others(sample: Sample, path: Path) -> Sample:
    """The sample in `path`, with the reconstructions of its step and what lies between two of it."""
    match = NAME.fullmatch(path.name)
    if not match:
        return sample
    rebuilt, between = (loaded(sample.step, path.with_name(name.format(match[1]))) for name in (REBUILT, BETWEEN))
    return replace(sample, rebuilt=rebuilt.picture if rebuilt else "", between=between.picture if between else "")


def listed(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def spread(count: int, frames: int) -> list[int]:
    """At most `frames` indices of `count`, evenly spaced, the last always, the first when there is room for two."""
    if count <= frames:
        return list(range(count))
    if frames == 1:
        return [count - 1]
    return sorted({round(index * (count - 1) / (frames - 1)) for index in range(frames)})


def loaded(step: int, path: Path) -> Sample | None:
    """None for a file that cannot be read or is not what its name says."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if path.suffix == ".txt":
        text = data.decode("utf-8", errors="replace")
        return Sample(step, text=text if len(text) <= TEXT else text[:TEXT] + "\n…")
    if data[:8] != b"\x89PNG\r\n\x1a\n" or len(data) < 24:
        return None
    if len(data) > LARGEST:
        data = shrunk(data)
    width = struct.unpack(">I", data[16:20])[0]
    return Sample(step, picture="data:image/png;base64," + base64.b64encode(data).decode(), width=width) if data else None


def shrunk(data: bytes) -> bytes:
    """The picture halved until it is small enough. As it was when Pillow cannot read it."""
    from PIL import Image

    try:
        picture: Image.Image = Image.open(io.BytesIO(data))
        while len(data) > LARGEST and min(picture.size) > 64:
            picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
            buffer = io.BytesIO()
            picture.save(buffer, "PNG", optimize=True)
            data = buffer.getvalue()
    except OSError:
        return data
    return data
