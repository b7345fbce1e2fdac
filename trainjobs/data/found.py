"""What a manifest's sources turn out to be: where each is, which of its objects are trained on, and which are held out. No torch here.

One process looks and tells the others: a listing may take a minute, and what is listed twice may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from trainjobs.api.data import Part
from trainjobs.api.job import Spec
from trainjobs.data import splits
from trainjobs.data.forms.recognise import LABELS, METADATA, Wants, form_of, recognise
from trainjobs.data.places.open import open_place
from trainjobs.data.places.place import Listed, Object, Place
from trainjobs.stores.patience import Patience


@dataclass(frozen=True)
class Found:
    """A source, looked at. `uri` has everything resolved that may change. `held` is there where a split of its own is held out, `elsewhere`
    the URI of that where it is not the same."""

    part: Part
    uri: str
    form: str
    train: Listed
    held: Listed | None = None
    elsewhere: str = ""
    words: tuple[str, ...] = ()
    tables: bool = False  # whether tables beside pictures name them

    def place(self, patience: Patience | None = None) -> Place:
        return open_place(self.uri, patience=patience)

    def place_held(self, patience: Patience | None = None) -> Place:
        return open_place(self.elsewhere or self.uri, patience=patience)

    def objects(self) -> Iterator[tuple[str, Object]]:
        """Every object that is read, with a name of its own among all of the source."""
        yield from ((one.name, one) for one in read_of(self.train, self.form, self.tables))
        yield from (
            (f"{self.elsewhere and 'validation/'}{one.name}", one) for one in read_of(self.held or Listed(()), self.form, self.tables)
        )


def look(spec: Spec, resolved: Mapping[str, str], patience: Patience | None = None) -> tuple[Found, ...]:
    """Each source of the data. `resolved` are URIs as a run that goes on began with them. JobErrors as of `Place`, `splits.divide` and
    `recognise`."""
    return tuple(_look(spec, part, resolved, patience) for part in spec.data.parts)


def wants(spec: Spec, listed: Listed) -> Wants:
    """What a family learns from; a custom job learns from pictures where there are any."""
    if spec.reads_text:
        return "text"
    return "image" if not spec.custom or any(form_of(one.name) == "images" for one in listed.objects) else ""


def read_of(listed: Listed, form: str, tables: bool = False) -> list[Object]:
    """The objects that are read where the data is of this form: those of it, what says something of pictures beside them (`tables`
    too), and where text is read as lines, plain text as well."""
    forms = {"jsonl", "text"} if form == "jsonl" else {form, *(("jsonl", "csv", "parquet") if form == "images" and tables else ())}
    pictures = {_stem(one.name) for one in listed.objects if form_of(one.name) == "images"} if form == "images" else set()
    return [one for one in listed.objects if form_of(one.name) in forms or (pictures and _beside(one.name, pictures))]


def _beside(name: str, pictures: set[str]) -> bool:
    return name.rpartition("/")[2] in (*METADATA, LABELS) or (name.endswith(".txt") and _stem(name) in pictures)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _look(spec: Spec, part: Part, resolved: Mapping[str, str], patience: Patience | None) -> Found:
    data = spec.data
    place = open_place(resolved.get(part.source, part.source), patience=patience)
    listed = place.listed()
    named = data.split.validation or ""
    found = splits.divide([one.name for one in listed.objects], listed.splits, data.split, place.uri)
    train, words = _only(listed, found.train), tuple(found.words())
    form = recognise(train, data, place.uri, wants(spec, train))
    validation, tables = found.validation, data.columns.image is not None
    if validation and tables:  # tables name pictures, which are of no split themselves
        own = splits.told([one.name for one in listed.objects if form_of(one.name) == "images"])
        validation += () if own else tuple(name for name in found.train if form_of(name) == "images")
    if "://" in named:
        other = open_place(resolved.get(named, named), patience=patience)
        return Found(part, place.uri, form, train, other.listed(), other.uri, words, tables)
    return Found(part, place.uri, form, train, _only(listed, validation) if validation else None, words=words, tables=tables)


def _only(listed: Listed, names: tuple[str, ...]) -> Listed:
    """The objects with these names."""
    if len(names) == len(listed.objects):
        return listed
    wanted = set(names)
    return replace(listed, objects=tuple(one for one in listed.objects if one.name in wanted))
