"""Suspension, and deletion in every phase: the machines are given back, and nothing stays behind."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.e2e.jobs import Team, manifest, saved

LEFT_BEHIND = "rayjobs,rayclusters,pods,services,secrets,serviceaccounts,roles,rolebindings,configmaps,jobs,networkpolicies,leases"


def theirs(team: Team) -> set[str]:
    """What is in the namespace, but for what every namespace has."""
    shown = team.kubectl("get", LEFT_BEHIND, "-o", "name").stdout.split()
    return set(shown) - {"secret/bucket", "serviceaccount/default", "configmap/kube-root-ca.crt"}


def test_suspend_and_resume(team: Team) -> None:
    team.submit(manifest("paused", steps=10**6, every=100))
    before = team.reach("paused", 150)
    team.gtj("stop", "paused", "--wait")
    team.cluster.until("an end of its pods", lambda: not team.kubectl("get", "pods", "-o", "name").stdout, 120)
    status = team.status("paused")
    assert status["phase"] == "Suspended"
    assert saved(status) >= before["step"], "steps were lost, or the status does not name the last checkpoint"
    team.gtj("resume", "paused")
    team.reach("paused", saved(status) + 20)
    (resumed,) = (row for row in team.rows("paused", "attempts.jsonl") if row["event"] == "resumed")
    assert resumed["step"] == saved(status)
    assert team.status("paused")["attempts"] == 1


PHASES: dict[str, Callable[[Team], None]] = {
    "Pending": lambda team: phase(team, "Pending"),
    "Provisioning": lambda team: phase(team, "Provisioning"),
    "Starting": lambda team: phase(team, "Starting"),
    "Running": lambda team: phase(team, "Running"),
    "Suspended": lambda team: suspended(team),
    "Succeeded": lambda team: ended(team, "Succeeded"),
    "Failed": lambda team: ended(team, "Failed"),
}


def phase(team: Team, wanted: str) -> None:
    changes = {"compute__profiles": ["no-such-profile"]} if wanted == "Pending" else {}
    team.submit(manifest("gone", steps=100000, **changes))
    team.cluster.until(f"phase {wanted}", lambda: team.status("gone").get("phase") == wanted, 180, every=0.1)


def suspended(team: Team) -> None:
    phase(team, "Running")
    team.gtj("stop", "gone", "--wait")


def ended(team: Team, wanted: str) -> None:
    changes = {"data__source": "file:///nowhere"} if wanted == "Failed" else {}
    team.submit(manifest("gone", steps=5, **changes))
    team.gtj("wait", "gone", "--timeout", "5m", check=False)
    assert team.status("gone")["phase"] == wanted


@pytest.mark.parametrize("wanted", PHASES)
def test_deletion_leaves_nothing_behind(team: Team, wanted: str) -> None:
    PHASES[wanted](team)
    team.gtj("rm", "gone", "--yes")
    team.cluster.until(f"an empty namespace, not {theirs(team)}", lambda: not theirs(team), 150)
    assert json.loads(team.kubectl("get", "gtj", "-o", "json").stdout)["items"] == []
