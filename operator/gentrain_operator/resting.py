"""What a job leaves alone for a while, because it has failed it: profiles, and nodes. Pure.

A profile rests when no node of it took the job's pods, when two attempts in a row ended on it without a new checkpoint, and, if its nodes
are spot, when they were taken back three times within an hour. It rests a quarter of an hour, and twice as long each further time, up to
four hours; four hours after a rest it counts as one that never rested. Whoever rests is passed over, not given up: the next attempt takes
the first profile of `compute.profiles` that does not rest, and where all of them do, the one whose rest is over first.

A node that two failed attempts name is avoided for a day, and so is one with a bad accelerator (surroundings.py) when an attempt begins.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from gentrain_operator.diagnose import Failure
from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.times import parsed_time, time
from trainjobs.api.errors import sentences

REST = (datetime.timedelta(minutes=15), datetime.timedelta(hours=4))  # the first, and the longest
RECLAIMS, WITHIN = 3, datetime.timedelta(hours=1)  # of spot nodes
SUSPICION, AVOIDED = 2, datetime.timedelta(days=1)
MOST = 16  # entries of either list in the status: as many as a job may name profiles


def awake(status: Object, name: str, now: datetime.datetime) -> bool:
    """Whether the profile may be taken. An end that is further away than the longest rest is of a clock that was set back since."""
    until = _until(_entry(status, name))
    return until is None or not now < until <= now + REST[1]


def order(status: Object, names: Iterable[str], now: datetime.datetime) -> list[str]:
    """Profiles as the next attempt prefers them: those awake as the job names them, then those that rest by the end of their rest."""
    return sorted(
        names, key=lambda name: datetime.datetime.min.replace(tzinfo=datetime.UTC) if awake(status, name, now) else _end(status, name)
    )


def present(status: Object, names: Iterable[str], now: datetime.datetime) -> str:
    """The profile of the attempt under way; of a status that does not say, of before, what would be chosen now. "" of no profile."""
    return str((status.get("plan") or {}).get("profile") or next(iter(order(status, names, now)), ""))


def homeward(status: Object, names: Sequence[str], now: datetime.datetime) -> str:
    """The profile that the job prefers to the one that it is on, and that does not rest; "" where there is none."""
    mine, best = present(status, names, now), next(iter(order(status, names, now)), "")
    return best if mine in names and names.index(best) < names.index(mine) else ""


def learned(
    status: Object, name: str, failure: Failure, now: datetime.datetime, *, spot: bool, worn: bool, moved: bool, others: bool
) -> Object:
    """What of the status changes because an attempt on profile `name` has ended: `spot`, of a profile of spot nodes; `worn`, after as many
    attempts without a new checkpoint as a profile gets; `moved`, because no node took its pods; `others`, of a job that has another
    profile to run on, without which none rests."""
    out: Object = {}
    if others and (moved or worn):
        out["profiles"] = rested(
            status, name, failure.line() if moved else f"attempts ended on it without a checkpoint: {failure.line()}", now
        )
    elif others and spot and failure.class_ == "Preemption":
        out["profiles"] = reclaimed(status, name, now)
    nodes = suspected(status, failure.node, now) if failure.class_ == "Infrastructure" else None
    return out | ({"avoidedNodes": nodes} if nodes else {})


def said(when: str, changes: Object, why: str) -> str:
    """The message of the next attempt: between when it begins and why, the rest that has just begun, if one has."""
    last = (changes.get("profiles") or [{}])[-1]
    rest = f"Profile {last['name']} rests until {last['restsUntil']}" if last.get("restsUntil") else ""
    return sentences(when, rest, why)


def rested(status: Object, name: str, why: str, now: datetime.datetime) -> list[Object]:
    """`status.profiles` once the profile has to rest from now on."""
    before = _entry(status, name)
    last = _until(before)
    fresh = last is None or now > last + REST[1] or last > now + REST[1]
    rests = 1 if fresh else int(before.get("rests", 0)) + 1
    length = min(REST[1], REST[0] * 2 ** min(rests - 1, 16))
    return _with(status, {"name": name, "restsUntil": time(now + length), "rests": rests, "why": clean(why, 256)}, now)


def reclaimed(status: Object, name: str, now: datetime.datetime) -> list[Object]:
    """`status.profiles` once a spot node of the profile was taken back."""
    entry = _entry(status, name)
    times = [*_taken_back(entry, now), time(now)][-RECLAIMS:]
    if len(times) == RECLAIMS:
        return rested(status, name, f"its spot nodes were taken back {RECLAIMS} times within an hour", now)
    return _with(status, {**entry, "name": name, "reclaims": times}, now)


def suspected(status: Object, node: str | None, now: datetime.datetime) -> list[Object] | None:
    """`status.avoidedNodes` once a failed attempt has named the node; None when nothing changes."""
    if not node:
        return None
    known = [one for one in status.get("avoidedNodes") or () if one["name"] != node and _recent(one, now)]
    before = next((one for one in status.get("avoidedNodes") or () if one["name"] == node and _recent(one, now)), {"failures": 0})
    return [*known, {**before, "name": node, "failures": before["failures"] + 1, "since": time(now)}][-MOST:]


def noted(status: Object, sick: Mapping[str, str], now: datetime.datetime) -> Object:
    """What of the status changes as an attempt begins while nodes have a bad accelerator: `sick`, with what is said of them."""
    if not sick:
        return {}
    known = {one["name"]: one for one in status.get("avoidedNodes") or () if _recent(one, now)}
    others = [one for name, one in known.items() if name not in sick]
    entries = [
        {"name": name, "failures": known.get(name, {}).get("failures", 0), "since": time(now), "why": clean(why, 256)}
        for name, why in sorted(sick.items())
    ]
    return {"avoidedNodes": [*others, *entries][-MOST:]}


def avoided(status: Object, now: datetime.datetime, sick: Mapping[str, str] = MappingProxyType({})) -> list[str]:
    """The nodes that the pods of the next attempt keep off, in the order of their names: as many as the status has room for."""
    entries = noted(status, sick, now).get("avoidedNodes") or status.get("avoidedNodes") or ()
    return sorted(one["name"] for one in entries if (one.get("failures", 0) >= SUSPICION or one.get("why")) and _recent(one, now))


def _entry(status: Object, name: str) -> Object:
    found: Object = next((one for one in status.get("profiles") or () if one.get("name") == name), {})
    return found


def _until(entry: Object) -> datetime.datetime | None:
    return parsed_time(entry.get("restsUntil"))


def _end(status: Object, name: str) -> datetime.datetime:
    return _until(_entry(status, name)) or datetime.datetime.min.replace(tzinfo=datetime.UTC)


def _taken_back(entry: Object, now: datetime.datetime) -> list[str]:
    return [text for text in entry.get("reclaims") or () if (at := parsed_time(text)) is not None and now - WITHIN < at <= now]


def _with(status: Object, entry: Object, now: datetime.datetime) -> list[Object]:
    """The list with this entry, without those that say nothing any more."""
    others = [one for one in status.get("profiles") or () if one.get("name") != entry["name"]]
    return [*(one for one in others if _says(one, now)), entry][-MOST:]


def _says(entry: Object, now: datetime.datetime) -> bool:
    until = _until(entry)
    return bool(_taken_back(entry, now)) or (until is not None and now <= until + REST[1])


def _recent(entry: Object, now: datetime.datetime) -> bool:
    since = parsed_time(entry.get("since"))
    return since is not None and now - AVOIDED < since <= now + AVOIDED
