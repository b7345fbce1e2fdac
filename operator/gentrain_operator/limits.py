"""What a job may use: time and money."""

from __future__ import annotations

import datetime

from gentrain_operator import spending
from gentrain_operator.diagnose import Failure
from gentrain_operator.kube.resource import Object
from trainjobs.api.job import Spec


def overdue(job: Object, spec: Spec, now: datetime.datetime, child: Object) -> Failure | None:
    """Why the job has to end now, if it has to."""
    status = job.get("status") or {}
    active, limit = spending.active_seconds(job, child, now), spec.active_deadline_seconds
    if limit is not None and active >= limit:
        return Failure(
            "GTJ0212", "Configuration", "the deadline is reached", f"it ran {active} of {limit} seconds", "raise activeDeadlineSeconds"
        )
    spent = (status.get("cost") or {}).get("usd", "unknown")
    if spec.budget is not None and spent != "unknown" and float(spent) >= float(spec.budget.max_usd):
        return Failure("GTJ0212", "Configuration", "the budget is used up", f"{spent} of {spec.budget.max_usd} USD", "raise budget.maxUSD")
    return None


def left(job: Object, spec: Spec, now: datetime.datetime, child: Object) -> float | None:
    """Seconds until the deadline, of an attempt whose time counts; None where there is none, or it stands still. The job is looked at then,
    whether or not anybody reports anything."""
    limit, active = spec.active_deadline_seconds, spending.active_seconds(job, child, now)
    soon = spending.active_seconds(job, child, now + datetime.timedelta(seconds=1))
    return max(0.0, float(limit - active)) if limit is not None and soon > active else None
