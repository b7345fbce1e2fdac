"""One condition for tools that know nothing of jobs, and what Argo CD's own script makes of them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lupa.lua51 import LuaRuntime  # Argo CD's interpreter is of Lua 5.1

from gentrain_operator.conditions import Condition, ready, settled
from gentrain_operator.kube.resource import Object

ROOT = Path(__file__).parents[2]
OK = Condition("Accepted", True, "Accepted")


@pytest.mark.parametrize(
    ("conditions", "status", "reason"),
    [
        ([OK, Condition("Running", True, "Stepping")], True, "Stepping"),
        ([OK, Condition("Complete", True, "Succeeded"), Condition("Finished", True, "Succeeded")], True, "Succeeded"),
        ([OK, Condition("Failed", True, "Failed", "GTJ0206"), Condition("Finished", True, "Failed")], False, "Failed"),
        ([OK, Condition("Suspended", True, "Suspended")], False, "Suspended"),
        ([OK, Condition("QuotaReserved", False, "WaitingForQuota")], False, "WaitingForQuota"),
        ([OK, Condition("Suspended", False, "NotSuspended"), Condition("ResourcesReady", False, "Unschedulable")], False, "Unschedulable"),
        ([OK, Condition("Running", False, "Stalled"), Condition("CheckpointReady", False, "NeverSaved")], False, "Stalled"),
        ([Condition("Accepted", False, "InvalidSpec")], False, "InvalidSpec"),
        ([OK], False, "Starting"),
    ],
)
def test_ready_sums_up_for_tools_that_know_nothing_of_jobs(conditions: list[Condition], status: bool, reason: str) -> None:
    found = ready(conditions)
    assert (found.type, found.status, found.reason) == ("Ready", status, reason)


def lua_health(job: Object) -> tuple[str, str]:
    """What Argo CD's interpreter makes of a job: the script sees `obj`, tables all the way down."""

    def table(value: Any) -> Any:
        if isinstance(value, dict):
            return lua.table_from({key: table(one) for key, one in value.items()})
        return lua.table_from([table(one) for one in value]) if isinstance(value, list) else value

    lua = LuaRuntime()
    lua.globals().obj = table(job)
    found = lua.execute((ROOT / "manifests" / "gitops" / "argocd-health.lua").read_text())
    return found["status"], found["message"]


@pytest.mark.parametrize(
    ("conditions", "health"),
    [
        ([OK, Condition("Running", True, "Stepping")], "Healthy"),
        ([OK, Condition("Complete", True, "Succeeded"), Condition("Finished", True, "Succeeded")], "Healthy"),
        ([OK, Condition("Failed", True, "Failed", "GTJ0206"), Condition("Finished", True, "Failed")], "Degraded"),
        ([OK, Condition("Suspended", True, "Suspended")], "Suspended"),
        ([OK, Condition("QuotaReserved", False, "WaitingForQuota")], "Progressing"),
        ([OK, Condition("Running", False, "Stalled", "GTJ0210 no step")], "Degraded"),
        ([OK, Condition("Running", False, "Recovering")], "Progressing"),
        ([Condition("Accepted", False, "InvalidSpec", "GTJ0102 no")], "Degraded"),
    ],
)
def test_argo_cd_shows_what_the_conditions_say(conditions: list[Condition], health: str) -> None:
    status = {"observedGeneration": 2, "message": "said", "conditions": settled([], conditions, 2, "t")}
    assert lua_health({"metadata": {"generation": 2}, "status": status})[0] == health
    # A spec that the operator has not looked at yet is not what its status speaks of.
    assert lua_health({"metadata": {"generation": 3}, "status": status})[0] == "Progressing"
    assert lua_health({"metadata": {"generation": 1}}) == ("Progressing", "the operator has not looked at it yet")
