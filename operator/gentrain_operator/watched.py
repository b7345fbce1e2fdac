"""The namespaces that are watched, and which of them can be worked on.

Each is watched by itself, with rights of its own. One that is gone, or whose Role is, concerns nobody else: nobody waits for it, its jobs
are left as they are, and it is taken up by itself once the server answers again. That is said once in the log, and for as long as it lasts
by /readyz and a metric.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from gentrain_operator.kube.resource import Resource

log = logging.getLogger(__name__)

NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Watching(Protocol):
    """What is needed of a reflector."""

    resource: Resource
    synced: threading.Event
    refused: str


def names(text: str | None) -> tuple[str, ...]:
    """Namespaces as they are written on a command line, with commas or white space between them, each once. None: all of them. ValueError
    when it names none, or what cannot be one."""
    if not text:
        return ()
    found = tuple(dict.fromkeys(re.findall(r"[^\s,]+", text)))
    wrong = [name for name in found if not NAME.fullmatch(name)]
    if wrong or not found:
        what = f"{wrong[0]!r} cannot be the name of a namespace" if wrong else f"{text!r} names no namespace"
        raise ValueError(f"{what}: give names with commas between them (a,b), or leave it out to watch all")
    return found


R = TypeVar("R", bound=Watching)


class Place(Generic[R]):
    """One namespace, or all of them: `name` None."""

    def __init__(self, name: str | None, reflectors: Sequence[R]) -> None:
        self.name, self.reflectors = name, reflectors

    def __str__(self) -> str:
        return f"namespace {self.name}" if self.name else "all namespaces"

    def workable(self) -> bool:
        """Whether everything of it is known, and goes on to be."""
        return all(one.synced.is_set() and not one.refused for one in self.reflectors)

    def refusal(self) -> str:
        """What the server answers instead; "" while it answers."""
        return "; ".join(f"{one.resource.plural}: {one.refused}" for one in self.reflectors if one.refused)


class Watched(Generic[R]):
    """All places. `take_up` is told of a place whose jobs have to be looked at, because now they can be."""

    def __init__(self, places: Iterable[Place[R]], take_up: Callable[[str | None], None]) -> None:
        self.places = tuple(places)
        self._take_up = take_up
        self._lock = threading.Lock()
        self._by_name = {place.name: place for place in self.places}
        self._workable: set[str | None] = set()
        self._refused: set[str | None] = set()

    def workable(self, namespace: str) -> bool:
        """Whether a job there may be worked on. What its RayJobs are is not known otherwise, nor would the server let them be touched."""
        place = self._by_name.get(namespace) or self._by_name.get(None)
        return place is not None and place.workable()

    def turned(self) -> None:
        """To be called when a reflector begins or ceases to be refused, and when it has listed for the first time."""
        for place in self.places:
            with self._lock:
                workable, refusal = place.workable(), place.refusal()
                up = workable and place.name not in self._workable
                lost, back = bool(refusal) and place.name not in self._refused, workable and place.name in self._refused
                (self._workable.add if workable else self._workable.discard)(place.name)
                if refusal or workable:
                    (self._refused.add if refusal else self._refused.discard)(place.name)
            if lost:
                log.error("%s", said(place, refusal))
            elif back:
                log.info("%s is watched again", place)
            if up:
                self._take_up(place.name)

    def waiting(self) -> str:
        """What has to come before anything can be worked on; "" once some place can be, and nothing is on its way for another."""
        late = [place for place in self.places if not place.workable()]
        if len(late) < len(self.places) and all(place.refusal() for place in late):
            return ""
        return "waiting for " + ", ".join(f"{place} ({place.refusal() or 'not listed yet'})" for place in late)

    def left_out(self) -> str:
        """The places that are refused, a line each."""
        return "\n".join(said(place, refusal) for place in self.places if (refusal := place.refusal()))


def said(place: Place[R], refusal: str) -> str:
    """One line for the log and for /readyz."""
    return (
        f"GTJ0307 {place} cannot be watched ({refusal}): its jobs are left as they are. It is taken up by itself once the operator's "
        "service account may list them there again"
    )
