"""What the operator knows of one kind of object: the last state its watch has told.

Everything in a store is shared between threads and never changed; a newer state replaces the whole object. Whoever wants to change
something writes a dict of its own.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from gentrain_operator.kube.resource import Object

SHORT = 32  # characters: reasons, phases, times


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


def shared(value: Any) -> Any:
    """The same, with equal names and short texts kept in memory once. Of ten thousand jobs that is half of what they take."""
    if isinstance(value, dict):
        return {sys.intern(name): shared(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shared(inner) for inner in value]
    return sys.intern(value) if isinstance(value, str) and len(value) <= SHORT else value


class Store:
    """Objects by key, and by the UID of the owner that controls them. `trim` decides what of an object is kept."""

    def __init__(self, trim: Callable[[Object], Object] = trimmed) -> None:
        self._trim = trim
        self._lock = threading.Lock()
        self._objects: dict[Key, Object] = {}
        self._owned: dict[str, dict[Key, None]] = {}  # dicts as ordered sets

    def get(self, key: Key) -> Object | None:
        with self._lock:
            return self._objects.get(key)

    def all(self) -> list[Object]:
        with self._lock:
            return list(self._objects.values())

    def owned_by(self, uid: str) -> list[Object]:
        with self._lock:
            return [self._objects[key] for key in self._owned.get(uid, ())]

    def __len__(self) -> int:
        with self._lock:
            return len(self._objects)

    def put(self, obj: Object) -> Object:
        """Keeps the newest state of an object; returns what is kept of it."""
        kept = self._kept(obj)
        with self._lock:
            return self._put(kept)

    def advance(self, before: Object, after: Object) -> None:
        """Keeps the answer to a write of ours until the watch brings it too, so that the next look does not trail behind. Only while the
        store has what was written over: a deletion that has come meanwhile stays one."""
        with self._lock:
            here = self._objects.get(key_of(after))
            if here is not None and here["metadata"].get("resourceVersion") == before["metadata"].get("resourceVersion"):
                self._put(self._kept(after))

    def remove(self, key: Key) -> Object | None:
        """Forgets an object; returns its last state."""
        with self._lock:
            self._unlink(key)
            return self._objects.pop(key, None)

    def replace(self, objects: Iterable[Object], namespace: str | None = None) -> list[Object]:
        """Makes the store what a fresh list says; returns every object that appeared, changed or went away. A list of one namespace says
        nothing about the others."""
        fresh = {key_of(obj): obj for obj in objects}
        with self._lock:
            before = {key: obj for key, obj in self._objects.items() if namespace in (None, key.namespace)}
        changed = [gone for key in before.keys() - fresh.keys() if (gone := self.remove(key))]
        for key, obj in fresh.items():
            old = before.get(key)
            if old is None or old["metadata"].get("resourceVersion") != obj["metadata"].get("resourceVersion"):
                with self._lock:
                    changed.append(self._put(obj))
        return changed

    def _kept(self, obj: Object) -> Object:
        kept: Object = shared(self._trim(obj))
        return kept

    def _put(self, kept: Object) -> Object:
        key = key_of(kept)
        self._unlink(key)
        self._objects[key] = kept
        owner = controller_of(kept)
        if owner:
            self._owned.setdefault(owner["uid"], {})[key] = None
        return kept

    def _unlink(self, key: Key) -> None:
        old = self._objects.get(key)
        owner = controller_of(old) if old else None
        if owner:
            keys = self._owned[owner["uid"]]
            del keys[key]
            if not keys:
                del self._owned[owner["uid"]]
