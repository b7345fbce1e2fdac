"""What is told by webhook when nobody watches: a job finished, failed, used up its budget, stalled, or has been in its queue for an hour.

What there is to tell is noted in the job's status, by the very write that makes it so, and stays there until it has been told: it is never
lost with an operator. It is told at least once: an operator that dies after the receiver has taken a notice and before that is written
down tells it again, with the same `id`. Pure.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence

from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.times import parsed_time, time

QUEUED = datetime.timedelta(hours=1)  # in a queue, until somebody hears of it
KEPT = 16
TEXT = 1024
# What a condition says, by type and status, and by reason where it has several: what is told, and in which words.
TOLD = {
    ("Complete", "True", ""): ("Finished", "finished"),
    ("Failed", "True", ""): ("Failed", "failed"),
    ("Suspended", "True", "BudgetReached"): ("BudgetReached", "has used up its budget"),
    ("Running", "False", "Stalled"): ("Stalled", "has stalled"),
}
WORDS = {**dict(TOLD.values()), "Queued": "has been in its queue for an hour"}


def noted(before: Object, after: Object, now: datetime.datetime) -> list[Object]:
    """`status.notices` of a status that is about to be written over `before`: what there is to tell now is added to what there was."""
    known = list(before.get("notices") or ())
    there = {(one["kind"], one["since"]) for one in known}
    news = [{"kind": kind, "since": since} for kind, since in _occasions(after, now) if (kind, since) not in there]
    untold = [one for one in known if "toldAt" not in one]
    told = [one for one in known if "toldAt" in one]
    kept = [*untold, *news][-KEPT:]
    return [*told[max(0, len(told) + len(kept) - KEPT) :], *kept]


def marked(notices: Sequence[Object], told: frozenset[str], job: Object, now: datetime.datetime) -> list[Object]:
    """The notices, with those that have been told marked so. `told` are names."""
    return [{**one, "toldAt": time(now)} if "toldAt" not in one and name(job, one) in told else one for one in notices]


def name(job: Object, notice: Object) -> str:
    """By which whoever is told twice knows it again."""
    return f"{job['metadata']['uid']}/{notice['kind']}/{notice['since']}"


def body(job: Object, notice: Object) -> Object:
    """What is posted: `text`, as Slack and what speaks like it read it, and the same by parts. A job's words are of its pods, so nothing
    in them is markup, and no mention of anybody."""
    status, metadata = job.get("status") or {}, job["metadata"]
    progress, cost = status.get("progress") or {}, status.get("cost") or {}
    said = clean(str(status.get("message") or ""), 512)
    step = f"step {progress['step']} of {progress['totalSteps']}" if "step" in progress and "totalSteps" in progress else ""
    usd = cost.get("usd", "unknown")
    about = ", ".join(part for part in (step, f"{usd} USD" if usd != "unknown" else "") if part)
    line = f"{metadata['namespace']}/{metadata['name']} {WORDS[notice['kind']]}" + (f" ({about})" if about else "")
    if notice["kind"] != "Finished" and said:
        line += f": {said}"
    parts = {
        "id": name(job, notice),
        "event": notice["kind"],
        "since": notice["since"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "phase": status.get("phase", ""),
        "message": said,
        "step": progress.get("step"),
        "totalSteps": progress.get("totalSteps"),
        "usd": usd,
        "failure": (status.get("failure") or {}).get("code") if notice["kind"] == "Failed" else None,
    }
    return {"text": _plain(line)[:TEXT], "job": {key: value for key, value in parts.items() if value is not None}}


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _occasions(status: Object, now: datetime.datetime) -> Iterator[tuple[str, str]]:
    """What there is to tell of a status, and since when it is so."""
    for one in status.get("conditions") or ():
        since = str(one["lastTransitionTime"])
        for reason in ("", one["reason"]):
            if found := TOLD.get((one["type"], one["status"], reason)):
                yield found[0], since
        waited = now - (parsed_time(since) or now)
        if (one["type"], one["status"]) == ("QuotaReserved", "False") and status.get("phase") == "Queued" and waited >= QUEUED:
            yield "Queued", since
