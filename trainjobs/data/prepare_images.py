"""Pictures as the model sees them, in WebDataset's tars: PNG, with class and caption beside."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from trainjobs.api.errors import JobError
from trainjobs.data.dataset import Dataset, Reading, encoded
from trainjobs.data.forms.records import Record, Value
from trainjobs.data.images import read
from trainjobs.data.pictures import Seen
from trainjobs.data.places.place import Shelf

_AT_ONCE = 256  # pictures whose files are in memory


@dataclass(frozen=True)
class Pictures:
    """`classes` are the numbers of a label's values, where there are labels."""

    dataset: Dataset
    shelf: Shelf
    classes: Mapping[Value, int]

    @classmethod
    def of(cls, dataset: Dataset, shelf: Shelf, reading: Reading) -> Pictures:
        found = dataset.classes(shelf, reading)
        return cls(dataset, shelf, found.numbers if found else {})

    def write(self, blocks: range, part: range | None, path: Path) -> dict[str, Any]:
        """Members 00000-000017.png, .cls and .txt: number of the first block, and of the picture in the shard."""
        columns, seen, rows = list(dict.fromkeys(self.dataset.roles.values())), Seen(), 0
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
            for number in blocks:
                every = range(self.dataset.records.blocks[number].rows) if part is None else part
                for start in range(0, len(every), _AT_ONCE):
                    for record in self.dataset.records.read(self.shelf, number, every[start : start + _AT_ONCE], columns):
                        for suffix, data in self._members(record, seen):
                            member = tarfile.TarInfo(f"{blocks.start:05d}-{rows:06d}.{suffix}")  # no time, no owner: the same bytes again
                            member.size = len(data)
                            tar.addfile(member, io.BytesIO(data))
                        rows += 1
        return {"rows": rows}

    def _members(self, record: Record, seen: Seen) -> list[tuple[str, bytes]]:
        images, roles = self.dataset.data.images, self.dataset.roles
        made = read(encoded(record, roles["image"]), images.size, images.channels, record.where)
        seen.add(record.where, made)
        pixels = made.pixels[0] if images.channels == 1 else made.pixels.transpose(1, 2, 0)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        members = [("png", file.getvalue())]
        if "label" in roles:
            members.append(("cls", str(self.classes[record.values[roles["label"]]]).encode()))
        if "caption" in roles:
            caption = record.values[roles["caption"]]
            if not isinstance(caption, str):
                how = "give it one, or leave it out by data.where"
                raise JobError("GTJ0113", f"{record.name} has no caption", where=record.where, how=how)
            members.append(("txt", caption.encode()))
        return members
