"""What the operator knows of one kind of object: the last state its watch has told.

Objects are kept as compact JSON, not as dicts: ten thousand jobs with their RayJobs are the operator's memory, and as dicts they take
several times as much. Whoever asks gets a dict of their own; to change it changes nothing here.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.wire import packed, read


class Key(NamedTuple):
    """Where an object is; namespace "" for a cluster-scoped one."""

    namespace: str
    name: str


def key_of(obj: Object) -> Key:
    return Key(obj["metadata"].get("namespace", ""), obj["metadata"]["name"])


def controller_of(obj: Object) -> Object | None:
    """The owner reference that controls the object, if any."""
    owners = obj["metadata"].get("ownerReferences", ())
    return next((owner for owner in owners if owner.get("controller")), None)


def trimmed(obj: Object) -> Object:
    """The object without what only servers and kubectl read: often more than half of it."""
    metadata = {key: value for key, value in obj["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations", {})
    last_applied = "kubectl.kubernetes.io/last-applied-configuration"
    if last_applied in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != last_applied}
    return {**obj, "metadata": metadata}


class _Kept(NamedTuple):
    """An object as it is kept: its resourceVersion, the UID of its controller ("" without one), and all of it as JSON."""

    version: str
    owner: str
    packed: bytes


def _kept(obj: Object) -> _Kept:
    owner = controller_of(obj)
    return _Kept(_version(obj), owner["uid"] if owner else "", packed(obj))


def _object(kept: _Kept) -> Object:
    obj: Object = read(kept.packed)
    return obj


def _version(obj: Object) -> str:
    return str(obj["metadata"].get("resourceVersion", ""))


class Store:
    """Objects by key, and by the UID of the owner that controls them. `trim` decides what of an object is kept."""

    def __init__(self, trim: Callable[[Object], Object] = trimmed) -> None:
        self._trim = trim
        self._lock = threading.Lock()
        self._objects: dict[Key, _Kept] = {}
        self._owned: dict[str, tuple[Key, ...]] = {}  # one or two RayJobs a job, mostly

    def get(self, key: Key) -> Object | None:
        with self._lock:
            kept = self._objects.get(key)
        return _object(kept) if kept else None

    def all_keys(self) -> list[Key]:
        with self._lock:
            return list(self._objects)

    def all(self) -> Iterator[Object]:
        """Every object that is there now, one at a time: all of them as dicts would be most of the operator's memory."""
        with self._lock:
            found = list(self._objects.values())
        return map(_object, found)

    def owned_by(self, uid: str) -> list[Object]:
        with self._lock:
            found = [self._objects[key] for key in self._owned.get(uid, ())]
        return [_object(kept) for kept in found]

    def __len__(self) -> int:
        with self._lock:
            return len(self._objects)

    def put(self, obj: Object) -> Object:
        """Keeps the newest state of an object; returns what is kept of it."""
        lean = self._trim(obj)
        kept = _kept(lean)
        with self._lock:
            self._put(key_of(lean), kept)
        return lean

    def advance(self, before: Object, after: Object) -> None:
        """Keeps the answer to a write of ours until the watch brings it too, so that the next look does not trail behind. Only while the
        store has what was written over: a deletion that has come meanwhile stays one."""
        kept = _kept(self._trim(after))
        with self._lock:
            here = self._objects.get(key_of(after))
            if here is not None and here.version == _version(before):
                self._put(key_of(after), kept)

    def remove(self, key: Key) -> Object | None:
        """Forgets an object; returns its last state."""
        with self._lock:
            kept = self._remove(key)
        return _object(kept) if kept else None

    def replace(self, objects: Iterable[Object], namespace: str | None = None) -> Iterator[Object]:
        """Makes the store what a fresh list says; every object that appeared, changed or went away, one at a time. A list of one namespace
        says nothing about the others. `objects` is read one by one, each trimmed before the next; if it raises, nothing is changed."""
        with self._lock:
            before = {key: kept for key, kept in self._objects.items() if namespace in (None, key.namespace)}
        fresh = {}
        for obj in objects:
            key = key_of(obj)
            old = before.get(key)
            fresh[key] = old if old is not None and old.version and old.version == _version(obj) else _kept(self._trim(obj))
        gone = [before[key] for key in before.keys() - fresh.keys()]
        changed = [(key, kept) for key, kept in fresh.items() if before.get(key) is not kept]
        with self._lock:
            for key in before.keys() - fresh.keys():
                self._remove(key)
            for key, kept in changed:
                self._put(key, kept)
        return map(_object, [*gone, *(kept for _, kept in changed)])

    def _put(self, key: Key, kept: _Kept) -> None:
        self._remove(key)
        # Of ten thousand objects the namespaces are a few.
        key = Key(sys.intern(key.namespace), key.name)
        self._objects[key] = kept
        if kept.owner:
            self._owned[kept.owner] = (*self._owned.get(kept.owner, ()), key)

    def _remove(self, key: Key) -> _Kept | None:
        old = self._objects.pop(key, None)
        if old is not None and old.owner:
            left = tuple(one for one in self._owned[old.owner] if one != key)
            if left:
                self._owned[old.owner] = left
            else:
                del self._owned[old.owner]
        return old
