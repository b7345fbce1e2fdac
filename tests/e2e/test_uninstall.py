"""`helm uninstall` takes the operator and leaves everybody's jobs; installed again, it goes on with them."""

from __future__ import annotations

from tests.e2e.cluster import ROOT, Cluster
from tests.e2e.jobs import Team, manifest
from tests.e2e.software import RELEASE, SYSTEM, gentrain


def test_uninstall_keeps_jobs(team: Team, cluster: Cluster) -> None:
    team.submit(manifest("kept", steps=10**6, every=500))
    team.reach("kept", 50)
    try:
        cluster.run("helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--wait")
        cluster.until(
            "an end of the operator's pods", lambda: not cluster.items("pods", SYSTEM, "app.kubernetes.io/component=operator"), 60
        )
        assert team.job("kept")["spec"]["training"]["steps"] == 10**6
        # Training needs no operator.
        team.reach("kept", team.progress("kept")["step"] + 50)
    finally:
        gentrain(cluster, chart=ROOT / "charts" / "gentrain")
    step = team.progress("kept")["step"]
    team.cluster.until("news in the status", lambda: team.status("kept")["progress"]["step"] > step, 90)
    assert team.status("kept")["attempts"] == 1
