"""`helm uninstall` takes the operator and leaves everybody's jobs; installed again, it goes on with them."""

from __future__ import annotations

from tests.e2e.cluster import ROOT, Cluster
from tests.e2e.jobs import Team, manifest
from tests.e2e.software import RELEASE, SYSTEM, gentrain


def test_uninstall_keeps_jobs(team: Team, cluster: Cluster) -> None:
    team.submit(manifest("kept", steps=4000, every=500))
    team.reach("kept", 50)
    try:
        cluster.run("helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--wait")
        assert cluster.items("pods", SYSTEM, "app.kubernetes.io/component=operator") == []
        assert team.job("kept")["spec"]["training"]["steps"] == 4000
        # Training needs no operator.
        team.reach("kept", team.progress("kept")["step"] + 50)
    finally:
        gentrain(cluster, chart=ROOT / "charts" / "gentrain")
    assert team.succeed("kept")["attempts"] == 1
