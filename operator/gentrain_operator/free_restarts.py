"""Restarts that count against nothing: how many in a row without progress, when their profile has to rest, and when they end.

`status.sinceProgress` starts over whenever a checkpoint of a later step is known, so that a job that gets on is never moved to another
profile, held up or ended by what befell it before.
"""

from __future__ import annotations

from gentrain_operator.diagnose import Failure
from gentrain_operator.kube.resource import Object

PER_PROFILE = 2
CAP = 20  # in a row without a commit: with the longest waits an hour and a half of nothing but failures
_INHERITED = CAP // 2  # at most, of a status from before this was kept


def counted(status: Object, moved: bool, *, gave_back: bool = False) -> Object:
    """`sinceProgress` after one more free restart. `moved`: the profile had no node, and the next attempt takes the next profile.
    `gave_back`: it did not fail but waited, which may take as long as it takes: it leads to the next profile, and never to the end."""
    since = _since(status)
    if moved:
        since["moves"] += 1
        since["restarts"] = 0
    else:
        since["restarts"] += 1
    if gave_back:
        return {**since, "gaveBack": since.get("gaveBack", 0) + 1}
    return {**since, "free": since["free"] + 1}


def worn(since: Object) -> bool:
    """Whether the attempts that have just been counted are reason enough to try another profile."""
    return bool(since["restarts"]) and since["restarts"] % PER_PROFILE == 0


def exhausted(since: Object, last: Failure) -> Failure | None:
    """Why the job has to end, once free restarts have led nowhere for too long."""
    if since["free"] < CAP:
        return None
    detail = f"{since['free']} attempts ended without a new checkpoint. The last: {last.line()}"
    return Failure("GTJ0217", "Infrastructure", "nothing but failures of machines", detail[:1024], "mend that, and submit the job again")


def _since(status: Object) -> Object:
    step = (status.get("checkpoint") or {}).get("step", 0)
    since: Object | None = status.get("sinceProgress")
    if since is None:
        restarts = status.get("restarts") or {}
        free = min(_INHERITED, restarts.get("infrastructure", 0) + restarts.get("preemption", 0))
        return {"step": step, "restarts": free, "moves": 0, "free": free}
    return dict(since) if step <= since["step"] else {"step": step, "restarts": 0, "moves": 0, "free": 0}
