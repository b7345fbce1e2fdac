"""What a job may use: time and money."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from gentrain_operator import spending
from gentrain_operator.conditions import Condition
from gentrain_operator.diagnose import Failure
from gentrain_operator.kube.resource import Object
from trainjobs.api.job import Spec

Profiles = Mapping[str, Object]


def overdue(job: Object, spec: Spec, now: datetime.datetime, child: Object) -> Failure | None:
    """Why the job has to end now, if it has to."""
    active, limit = spending.active_seconds(job, child, now), spec.active_deadline_seconds
    if limit is not None and active >= limit:
        return Failure(
            "GTJ0212", "Configuration", "the deadline is reached", f"it ran {active} of {limit} seconds", "raise activeDeadlineSeconds"
        )
    return None


NEARLY = Fraction(8, 10)  # of a budget: from there on the status warns of it
SECOND = 1  # time is counted in whole ones
GRACE = 120  # seconds, of a profile that is gone


def spent_up(job: Object, spec: Spec, profiles: Profiles, now: datetime.datetime, child: Object | None, pods: Sequence[Object] = ()) -> str:
    """Why the job has to give its machines back, "" while it may go on: of its budget there is left what it costs to end, a checkpoint
    within the pods' grace included. `child` is the RayJob of an attempt under way, `pods` are those of which the start counts."""
    money = _money(job, spec, profiles, now, child, pods)
    if money is None or money.left > money.reserve:
        return ""
    end = f", and {float(money.reserve):.2f} are kept for its last checkpoint" if money.reserve else ""
    return (
        f"GTJ0212 {float(money.spent):.2f} of {float(money.limit):.2f} USD are spent{end}: its machines are given back, the checkpoint "
        "stays. Raise budget.maxUSD and it goes on by itself"
    )


def within(spec: Spec, cost: Object) -> list[Condition]:
    """What the status says of a job's budget, given `status.cost`; nothing of a job without one."""
    if spec.budget is None or "microUSD" not in cost:
        return []
    spent, limit = Fraction(cost["microUSD"], 10**6), Fraction(spec.budget.max_usd)
    told = f"{float(spent):.2f} of {float(limit):.2f} USD"
    fine = spent < NEARLY * limit
    return [Condition("WithinBudget", fine, "WithinBudget" if fine else "BudgetNearlySpent", "" if fine else f"{told} are spent")]


@dataclass(frozen=True)
class _Money:
    """In USD. `rate` is per second, `reserve` what it costs to end."""

    limit: Fraction
    spent: Fraction
    rate: Fraction
    reserve: Fraction

    @property
    def left(self) -> Fraction:
        return self.limit - self.spent


def _money(
    job: Object, spec: Spec, profiles: Profiles, now: datetime.datetime, child: Object | None, pods: Sequence[Object]
) -> _Money | None:
    """None without a budget, and before there is a price."""
    if spec.budget is None:
        return None
    cost = spending.cost(job, spec, profiles, child, now, pods=pods if spending.whole(child) else (), final=True)["cost"]
    if "microUSD" not in cost:
        return None
    rate = Fraction(cost["ratePerHourUSD"] if cost["ratePerHourUSD"] != "unknown" else 0) / 3600
    name = ((job.get("status") or {}).get("plan") or {}).get("profile", "")
    grace = ((profiles.get(name) or {}).get("spec") or {}).get("gracePeriodSeconds", GRACE)
    return _Money(Fraction(spec.budget.max_usd), Fraction(cost["microUSD"], 10**6), rate, rate * (grace + SECOND))


def left(job: Object, spec: Spec, profiles: Profiles, now: datetime.datetime, child: Object, pods: Sequence[Object] = ()) -> float | None:
    """Seconds until the deadline or the end of the budget, of an attempt whose time counts; None where there is neither, or it stands
    still. The job is looked at then, whether or not anybody reports anything."""
    limit, active = spec.active_deadline_seconds, spending.active_seconds(job, child, now)
    if spending.active_seconds(job, child, now + datetime.timedelta(seconds=1)) <= active:
        return None
    money = _money(job, spec, profiles, now, child, pods)
    ends = [float(limit - active)] if limit is not None else []
    ends += [max(1.0, float((money.left - money.reserve) / money.rate))] if money is not None and money.rate else []
    return max(0.0, min(ends)) if ends else None
