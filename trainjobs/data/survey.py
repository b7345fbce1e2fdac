"""What a data set is made of, found out by looking at some of its samples: columns and what they stand for, how many samples, how large,
how alike. For people, before anything is trained. No torch here.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trainjobs.api.errors import JobError, printable
from trainjobs.data.files import megabytes
from trainjobs.data.forms.records import Record, Records, Value
from trainjobs.data.places.place import Shelf

LOOKED, BLOCKS = 2000, 64  # samples, and blocks among which they are spread
AWAY = 8  # times fewer of both of what is not on this machine, where each takes a request
LONGEST = 48  # characters of an example
NAMED = 20  # groups of duplicates, samples that cannot be read, labels


@dataclass(frozen=True)
class Column:
    """`role` is empty for a column that nothing is learned from; `example` is the first sample's value, as people would say it."""

    name: str
    kind: str
    role: str
    example: str


@dataclass(frozen=True)
class Histogram:
    """How many of the samples that were looked at lie in each range of `of`, both ends counting."""

    of: str  # "shorter side, in pixels", "length, in characters"
    bins: tuple[tuple[int, int, int], ...]  # (least, most, samples)
    least: int
    most: int


@dataclass(frozen=True)
class Survey:
    """`samples` and `heldout` are counts of all the data, estimates where not `exact`; everything below `looked` is of so many samples."""

    source: str
    words: tuple[str, ...]
    columns: tuple[Column, ...]
    samples: int  # trained on
    heldout: int
    files: int
    bytes: int
    exact: bool = True
    rows: int = 0  # among which is looked: those of a split that is held out are not
    looked: int = 0
    histogram: Histogram | None = None
    labels: tuple[tuple[str, int], ...] = ()  # the most frequent first
    duplicates: tuple[tuple[str, ...], ...] = ()  # names of samples with the same contents
    copies: int = 0  # samples that are the same as an earlier one
    broken: tuple[tuple[str, str], ...] = ()  # (where, why)
    buckets: tuple[tuple[str, int], ...] = ()  # of training pictures by their shapes, "256x128", the most frequent first

    def as_data(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        if self.histogram:
            found["histogram"]["bins"] = [{"from": low, "to": high, "samples": count} for low, high, count in self.histogram.bins]
        found["labels"], found["buckets"] = dict(self.labels), dict(self.buckets)
        found["broken"] = [{"where": where, "why": why} for where, why in self.broken]
        return found


def survey(
    records: Records,
    roles: Mapping[str, str],
    shelf: Shelf,
    samples: int,
    heldout: int,
    words: Sequence[str] = (),
    *,
    exact: bool = True,
    look: int = LOOKED,
    buckets: Sequence[tuple[str, int]] = (),
) -> Survey:
    """Of records of which `samples` rows are trained on and `heldout` held out. At most `look` samples are read, evenly spread, and an
    eighth of it of data that lies elsewhere; those that cannot be read are told, not raised."""
    shown = _first(records, shelf)
    columns = tuple(
        Column(name, kind, next((role for role, column in roles.items() if column == name), ""), example(shown.get(name), kind))
        for name, kind in records.columns.items()
    )
    objects = {one.name: one.size for block in records.blocks for one in block.objects}
    fewer = AWAY if any(one.path is None for block in records.blocks[:1] for one in block.objects) else 1
    broken: list[tuple[str, str]] = []
    looked = list(_looked(records, shelf, tuple(roles.values()), -(-look // fewer), BLOCKS // fewer, broken))
    same, copies = duplicates(looked, roles)
    labels = Counter(_said(record.values.get(roles["label"])) for record in looked) if "label" in roles else Counter[str]()
    return Survey(
        records.place.uri,
        (*records.words(), *words),
        columns,
        samples,
        heldout,
        len(objects),
        sum(objects.values()),
        exact,
        sum(block.rows for block in records.blocks),
        len(looked) + len(broken),
        histogram(looked, roles),
        tuple(labels.most_common(NAMED)),
        same[:NAMED],
        copies,
        tuple(broken[:NAMED]),
        tuple(buckets),
    )


def spread(lengths: Sequence[int], count: int, blocks: int = BLOCKS) -> list[tuple[int, list[int]]]:
    """(block, rows in it): at most `count` rows of blocks of these lengths, evenly spread over at most so many of them."""
    filled = [number for number, length in enumerate(lengths) if length]
    chosen = [filled[at] for at in _even(len(filled), blocks)]
    total = sum(lengths[block] for block in chosen)
    rows: dict[int, list[int]] = {}
    begin, numbers = 0, iter(_even(total, count))
    number = next(numbers, None)
    for block in chosen:
        end = begin + lengths[block]
        while number is not None and number < end:
            rows.setdefault(block, []).append(number - begin)
            number = next(numbers, None)
        begin = end
    return list(rows.items())


def histogram(records: Iterable[Record], roles: Mapping[str, str]) -> Histogram | None:
    """Of pictures the shorter side, of texts all that is learned from; None where there is neither."""
    if "image" in roles:
        sizes = [min(size) for record in records if (size := dimensions(record.values.get(roles["image"]))[:2]) and all(size)]
        return binned("shorter side, in pixels", sizes, 2)
    texts = [column for role, column in roles.items() if role != "label"]
    lengths = [sum(length(record.values.get(column)) for column in texts) for record in records] if texts else []
    return binned("length, in characters", lengths, 4)


def binned(of: str, values: Sequence[int], base: int) -> Histogram | None:
    """In ranges each of which is `base` times as wide as the one before, from the first to the last that holds anything."""
    if not values:
        return None
    powers = Counter(_power(value, base) for value in values)
    bins = [
        (base**power if power >= 0 else 0, base ** (power + 1) - 1 if power >= 0 else 0, powers[power])
        for power in range(min(powers), max(powers) + 1)
    ]
    return Histogram(of, tuple(bins), min(values), max(values))


def duplicates(records: Iterable[Record], roles: Mapping[str, str]) -> tuple[tuple[tuple[str, ...], ...], int]:
    """(groups of names of samples whose contents are the same, the largest first; how many are copies). A label is no content."""
    columns = [column for role, column in roles.items() if role != "label"]
    found: dict[bytes, list[str]] = {}
    for record in records:
        digest = hashlib.sha256()
        for column in columns:
            value = record.values.get(column)
            data = value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
            digest.update(b"%d:" % len(data) + data)
        found.setdefault(digest.digest(), []).append(printable(record.name)[:120])
    groups = sorted((tuple(names) for names in found.values() if len(names) > 1), key=lambda names: (-len(names), names))
    return tuple(groups), sum(len(names) - 1 for names in groups)


def dimensions(value: Value) -> tuple[int, int, str]:
    """(width, height, format) of an encoded picture, by its head alone; zeros and "" for what is none."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(value)) as image:
            return image.width, image.height, image.format or ""
    except Exception:  # Pillow raises what it likes on what is no picture, and training tells it by name
        return 0, 0, ""


def length(value: Value) -> int:
    """Characters of all text in a value: of messages what they say."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return length(value["content"]) if "content" in value else sum(map(length, value.values()))
    return sum(map(length, value)) if isinstance(value, list | tuple) else 0


def example(value: Value, kind: str) -> str:
    """A value in a few words."""
    if value is None:
        return ""
    if kind == "image" and isinstance(value, bytes):
        width, height, form = dimensions(value)
        return f"{width} x {height} {form}, {megabytes(len(value))}" if width else f"{megabytes(len(value))}, no picture"
    if isinstance(value, bytes):
        return megabytes(len(value))
    if isinstance(value, list | dict):
        value = json.dumps(value, default=str, ensure_ascii=False)
    return _said(value)


def _said(value: Value) -> str:
    text = printable(" ".join(str(value).split()))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def _first(records: Records, shelf: Shelf) -> Mapping[str, Value]:
    """All columns of the first sample; none where it cannot be read."""
    for block, _ in spread([block.rows for block in records.blocks], 1):
        try:
            return records.read(shelf, block, [0], tuple(records.columns))[0].values
        except JobError:
            return {}
    return {}


def _looked(
    records: Records, shelf: Shelf, columns: Sequence[str], count: int, blocks: int, broken: list[tuple[str, str]]
) -> Iterator[Record]:
    for block, rows in spread([block.rows for block in records.blocks], count, blocks):
        try:
            yield from records.read(shelf, block, rows, columns)
        except JobError:
            for row in rows:  # one of them: which, each by itself says
                try:
                    yield from records.read(shelf, block, [row], columns)
                except JobError as error:
                    broken.append((error.where, error.what if not error.why else f"{error.what}: {error.why}"))


def _even(total: int, count: int) -> list[int]:
    """At most `count` numbers below `total`, evenly spread from 0 on."""
    taken = min(total, count)
    return [number * total // taken for number in range(taken)]


def _power(value: int, base: int) -> int:
    """The largest p for which base ** p <= value; -1 for 0."""
    power = -1
    while base ** (power + 1) <= value:
        power += 1
    return power
