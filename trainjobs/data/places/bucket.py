"""A bucket's data: one object, what lies below a prefix, all of a bucket, or what fits a pattern; through the stores of checkpoints.

What is left out of a folder is left out here, too: hidden names, the folders that file managers make for themselves; and objects without
contents that only stand for a folder.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from threading import Lock

from trainjobs.api.errors import JobError
from trainjobs.data.places.folder import hidden_kind, unmatched
from trainjobs.data.places.glob import Glob
from trainjobs.data.places.place import Listed, Object
from trainjobs.data.tree import THEIR_OWN
from trainjobs.stores.bucket import Bucket, Found, Page
from trainjobs.stores.patience import NoAnswer, Patience, ask, listing
from trainjobs.stores.ranges import blocks, piece
from trainjobs.stores.store import Missing, StoreError

PART = 8 << 20
WORKERS = 4  # ranges of one object on their way at a time
TRIES = 3  # how often an object is fetched that arrives with another MD5 than its own
MD5 = " md5:"


class BucketPlace:
    """`bucket` has no prefix; `path` is what the URI names in it, "" for all of it, or `pattern`. Nothing is asked before it is needed."""

    def __init__(self, bucket: Bucket, uri: str, path: str, pattern: Glob | None, patience: Patience) -> None:
        self._bucket, self._uri, self._named, self._pattern, self._patience = bucket, uri, path, pattern, patience
        self._known, self._lock = pattern.base if pattern else None, Lock()

    @property
    def uri(self) -> str:
        return self._uri

    def listed(self) -> Listed:
        if self._pattern is not None:
            return self._fitting(self._pattern)
        base = self._base()
        if len(base) < len(self._named):
            return self._one(base)
        with self._told():
            sifted = sift(listing(self._bucket, self._patience, base, self._uri), base)
        if not sifted.objects and not sifted.others and not sifted.folders:
            raise JobError("GTJ0113", "the data does not exist", where=self._uri, why=self._instead(base), how="mend data.source")
        return sifted

    def read(self, found: Object, start: int, stop: int) -> bytes:
        stop = min(stop, found.size)
        ranges = ((at, min(at + PART, stop)) for at in range(start, stop, PART))
        if stop - start <= PART:
            return b"".join(self._range(found, *each) for each in ranges)
        return b"".join(blocks(ranges, lambda each: self._range(found, *each), WORKERS))

    def fetch(self, found: Object, to: Path) -> None:
        """Errors of writing are OSErrors."""
        for attempt in range(TRIES):
            with open(to, "wb" if attempt else "xb") as file:
                if self._arrived(found, file.write):
                    return
        raise self._damaged(found)

    def contents(self, found: Object) -> bytes:
        for _ in range(TRIES):
            parts: list[bytes] = []
            if self._arrived(found, parts.append):
                return b"".join(parts)
        raise self._damaged(found)

    def _arrived(self, found: Object, write: Callable[[bytes], object]) -> bool:
        """All of an object; whether it has the MD5 that the listing tells, if it tells one."""
        told, seen = found.tag.partition(MD5)[2], hashlib.md5(usedforsecurity=False)
        ranges = ((at, min(at + PART, found.size)) for at in range(0, found.size, PART))
        large = found.size > PART
        for data in blocks(ranges, lambda each: self._range(found, *each), WORKERS) if large else self._whole(found):
            write(data)
            if told:
                seen.update(data)
        return not told or seen.hexdigest() == told

    def _damaged(self, found: Object) -> JobError:
        why = f"it arrived {TRIES} times with another MD5 than the one that the store keeps"
        return JobError("GTJ0113", f"{found.name} is damaged", where=self.where(found), why=why, how="put the object there again")

    def where(self, found: Object) -> str:
        return f"{self._bucket.uri}{self._base()}{found.name}"

    def _one(self, base: str) -> Listed:
        with self._told():
            found = _exact(listing(self._bucket, self._patience, self._named, self._uri), self._named)
        if found is None:
            raise JobError("GTJ0113", "the data does not exist", where=self._uri, why=self._instead(base), how="mend data.source")
        return Listed((_object(found, base),))

    def _whole(self, found: Object) -> Iterator[bytes]:
        if found.size:
            yield self._range(found, 0, found.size)

    def _range(self, found: Object, start: int, stop: int) -> bytes:
        version, path = found.tag.partition(MD5)[0], self._base() + found.name
        where = f"{self._bucket.uri}{path}"
        with self._told(where):
            return piece(self._bucket, self._patience, where, path, start, stop - start, version).data

    def _base(self) -> str:
        """What stands before the names of this place's objects: the folder that the URI names, or the one that its object lies in."""
        if (known := self._known) is not None:  # asked for each sample
            return known
        with self._lock:
            if self._known is None:
                folder = f"{self._named}/" if self._named and not self._named.endswith("/") else self._named
                if folder != self._named:
                    first = self._page(self._named)
                    object = _exact(iter(first.objects), self._named)
                    if object is not None and (object.size or not any(each.path.startswith(folder) for each in first.objects)):
                        folder = self._named[: self._named.rfind("/") + 1]
                self._known = folder
            return self._known

    def _fitting(self, pattern: Glob) -> Listed:
        with self._told():
            found = sift(listing(self._bucket, self._patience, pattern.prefix, self._uri), pattern.base)
        names, missing = pattern.choose(each.name for each in found.objects)
        if not names:
            raise JobError("GTJ0113", "nothing fits the pattern", where=self._uri, why=self._instead(pattern.base), how="mend data.source")
        if missing:
            raise unmatched(self._uri, "", [], True, missing)
        chosen = set(names)
        return Listed(tuple(each for each in found.objects if each.name in chosen))

    def _instead(self, prefix: str) -> str:
        """What is there: of the longest part of a prefix that holds anything, the first names."""
        while True:
            page = self._page(prefix)
            rest = [each.path.removeprefix(prefix) for each in page.objects if each.path != prefix]
            names = list(dict.fromkeys(name.partition("/")[0] + "/" * ("/" in name) for name in rest))
            if names or not prefix:
                shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
                whole = f"{self._bucket.uri}{prefix}"
                return f"{whole} holds {shown}" if names else f"{whole} is empty"
            prefix = prefix[: prefix.rstrip("/").rfind("/") + 1]

    def _page(self, prefix: str) -> Page:
        with self._told():
            return ask(self._bucket, self._patience, "list", self._uri, lambda: self._bucket.list(prefix))

    @contextmanager
    def _told(self, object: str = "") -> Iterator[None]:
        """The store's errors as users read them: about an object, or about a listing."""
        where = object or self._uri
        try:
            yield
        except Missing as error:
            if not object:  # a listing is never missing, but for what it would list
                raise self._no_bucket("the store knows nothing of that name") from error
            how = "leave the data as it is while a run reads it, and start the run again"
            raise JobError(
                "GTJ0113", "an object of the data is not what was listed", where=where, why=f"it {error.why}", how=how
            ) from error
        except NoAnswer as error:
            how = "see that the bucket can be reached from here, and that its endpoint is the right one"
            raise JobError("GTJ0219", "the data does not answer", where=where, why=error.why, how=how) from error
        except StoreError as error:
            if error.reason == "no bucket":
                raise self._no_bucket(error.why) from error
            how = "grant that right" if error.reason == "denied" else "give the job credentials, see docs/how-to/object-stores.md"
            if error.reason not in ("denied", "credentials"):
                how = "check the bucket's name, region and endpoint"
            raise JobError("GTJ0112", "the data cannot be read", where=where, why=error.why, how=how) from error
        except ValueError as error:  # an SDK about its environment: no endpoint, no connection string can be like that
            how = "check the endpoint and the credentials in the environment"
            raise JobError("GTJ0107", "the bucket cannot be asked", where=where, why=str(error), how=how) from error

    def _no_bucket(self, why: str) -> JobError:
        how = "mend data.source, or make the bucket; an endpoint of another store is set in the environment"
        return JobError("GTJ0113", "the data's bucket does not exist", where=self._uri, why=why, how=how)


def sift(found: Iterator[Found], base: str) -> Listed:
    """What of a listing is data, by name, and what is left out."""
    objects: list[Object] = []
    empty: list[Object] = []
    others: Counter[str] = Counter()
    folders: dict[str, None] = {}  # every folder that was not entered, once
    for each in found:
        parts = each.path.removeprefix(base).split("/")
        above = next((at for at, part in enumerate(parts[:-1]) if part.startswith(".") or part in THEIR_OWN), None)
        if above is not None:
            folders["/".join(parts[: above + 1])] = None
        elif not parts[-1]:  # "photos/": made by a console, for the folder itself
            continue
        elif parts[-1].startswith("."):
            others[hidden_kind(parts[-1])] += 1
        else:
            (objects if each.size else empty).append(_object(each, base))
    if empty:  # of hierarchical stores, folders are listed by their names without a slash
        inner = {name[:at] for name in (each.name for each in objects) for at in range(len(name)) if name[at] == "/"}
        inner |= {each.name[: each.name.rfind("/")] for each in empty if "/" in each.name}
        objects += [each for each in empty if each.name not in inner]
    counted = Counter(name.rpartition("/")[2] for name in folders)
    return Listed(tuple(sorted(objects, key=lambda each: each.name)), others, counted)


def _exact(found: Iterator[Found], path: str) -> Found | None:
    """The object of that very name; listings are sorted, so it is not far."""
    return next((each for each in islice(found, 1000) if each.path == path), None)


def _object(found: Found, base: str) -> Object:
    return Object(found.path.removeprefix(base), found.size, found.version + (f"{MD5}{found.md5}" if found.md5 else ""))
