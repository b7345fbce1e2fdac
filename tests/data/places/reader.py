"""A process that holds objects of a cache as told: `reader.py FOLDER LIMIT SEED HOLDS [slow | small]`. It says how many it fetched.

With `small` it reads them by the crate. With `slow` it begins to fetch, writes half of the first object, says so, and stays there until it
is killed.
"""

from __future__ import annotations

import random
import sys
import threading
from pathlib import Path

from tests.data.places.memory import Numbers, contents, number
from trainjobs.data.places.place import Object
from trainjobs.data.places.shelf import DiskShelf

OBJECTS = [number(each, 1 + each * 977 % 30_000) for each in range(40)]


class Stuck(Numbers):
    def fetch(self, found: Object, to: Path) -> None:
        to.write_bytes(contents(found)[: found.size // 2])
        print("half", flush=True)
        threading.Event().wait()


def main() -> None:
    folder, limit, seed, holds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    shelf, chance, source = DiskShelf(folder, limit), random.Random(seed), Numbers()
    if sys.argv[5:] == ["slow"]:
        with shelf.hold(Stuck(), [OBJECTS[-1]]):
            raise AssertionError
    if sys.argv[5:] == ["small"]:
        for _ in range(holds):
            shelf.soon(source, chance.sample(OBJECTS, 2))
            wanted = chance.sample(OBJECTS, chance.randint(1, 6))
            assert shelf.contents(source, wanted) == [contents(each) for each in wanted]
        shelf.close()
        print(source.fetched.total(), flush=True)
        return
    for _ in range(holds):
        wanted = chance.sample(OBJECTS, chance.randint(1, 3))
        shelf.ahead(source, chance.sample(OBJECTS, 2))
        with shelf.hold(source, wanted) as paths:
            assert [path.read_bytes() for path in paths] == [contents(each) for each in wanted]
    print(source.fetched.total(), flush=True)


if __name__ == "__main__":
    main()
