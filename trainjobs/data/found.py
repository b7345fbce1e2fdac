"""What a manifest's sources turn out to be: where each is, which of its objects are trained on, and which are held out. No torch here.

One process looks and tells the others: a listing may take a minute, and what is listed twice may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from trainjobs.api.data import Data, Part
from trainjobs.data import splits
from trainjobs.data.places.open import open_place
from trainjobs.data.places.place import Listed, Object, Place
from trainjobs.stores.patience import Patience


@dataclass(frozen=True)
class Found:
    """A source, looked at. `uri` has everything resolved that may change. `held` is there where a split of its own is held out, `elsewhere`
    the URI of that where it is not the same."""

    part: Part
    uri: str
    train: Listed
    held: Listed | None = None
    elsewhere: str = ""
    words: tuple[str, ...] = ()

    def place(self, patience: Patience | None = None) -> Place:
        return open_place(self.uri, patience=patience)

    def place_held(self, patience: Patience | None = None) -> Place:
        return open_place(self.elsewhere or self.uri, patience=patience)

    def objects(self) -> Iterator[tuple[str, Object]]:
        """Every object with a name of its own among all of a job's data, if this is its only source."""
        yield from ((one.name, one) for one in self.train.objects)
        yield from ((f"{self.elsewhere and 'validation/'}{one.name}", one) for one in (self.held.objects if self.held else ()))


def look(data: Data, resolved: Mapping[str, str], patience: Patience | None = None) -> tuple[Found, ...]:
    """Each source of the data. `resolved` are URIs as a run that goes on began with them. JobErrors as of `Place` and `splits.divide`."""
    return tuple(_look(data, part, resolved, patience) for part in data.parts)


def _look(data: Data, part: Part, resolved: Mapping[str, str], patience: Patience | None) -> Found:
    place = open_place(resolved.get(part.source, part.source), patience=patience)
    listed = place.listed()
    named = data.split.validation or ""
    found = splits.divide([one.name for one in listed.objects], listed.splits, data.split, place.uri)
    train = _only(listed, found.train)
    if "://" in named:
        other = open_place(resolved.get(named, named), patience=patience)
        return Found(part, place.uri, train, other.listed(), other.uri, tuple(found.words()))
    return Found(part, place.uri, train, _only(listed, found.validation) if found.validation else None, words=tuple(found.words()))


def _only(listed: Listed, names: tuple[str, ...]) -> Listed:
    """The objects with these names."""
    if len(names) == len(listed.objects):
        return listed
    wanted = set(names)
    return replace(listed, objects=tuple(one for one in listed.objects if one.name in wanted))
