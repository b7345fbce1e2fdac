"""Looking at data fetches what is small, once, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainjobs.data.places import sparing
from trainjobs.data.places.place import Object
from trainjobs.data.places.sparing import MOST, SMALL, Sparing, cheap


@dataclass
class Counting:
    uri: str = "s3://bucket/x"
    fetched: list[str] = field(default_factory=list)

    def fetch(self, found: Object, to: Path) -> None:
        self.fetched.append(found.name)
        to.write_bytes(found.name.encode())


def test_small_objects_are_fetched_once(tmp_path: Path) -> None:
    place: Any = Counting()
    shelf = Sparing(tmp_path / "new")
    objects = [Object("../a", 4, "1"), Object("b", SMALL + 1, "1"), Object("c", 3, "1", tmp_path / "c")]
    for _ in range(2):
        with shelf.hold(place, objects) as paths:
            assert paths[0].read_bytes() == b"../a"
            assert paths[0].parent == tmp_path / "new"
            assert paths[1:] == [None, tmp_path / "c"], "ranges of what is large; what is here as it is"
    with shelf.hold(place, [Object("../a", 4, "2")]) as other:
        assert other[0] != paths[0], "other contents"
    assert place.fetched == ["../a", "../a"]


def test_no_more_than_so_much_is_fetched(tmp_path: Path) -> None:
    place: Any = Counting()
    shelf = Sparing(tmp_path, left=10)
    with shelf.hold(place, [Object("a", 6, ""), Object("b", 6, ""), Object("c", 4, "")]) as paths:
        assert [path is not None for path in paths] == [True, False, True]
    assert shelf.left == 0
    shelf.ahead(place, [Object("d", 0, "")])
    assert place.fetched == ["a", "c"]


def test_what_can_be_read_whole() -> None:
    assert cheap([Object("a", MOST, "")])
    assert not cheap([Object("a", MOST, ""), Object("b", 1, "")])
    assert cheap([Object("a", 10 * MOST, "", Path("/a"))])
    assert sparing.SMALL < sparing.MOST
