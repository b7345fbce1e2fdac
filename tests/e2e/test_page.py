"""docs/start/cluster.md: its commands as they stand, after the first one, which installs KubeRay from where there is no way to here."""

from __future__ import annotations

import shlex

import yaml

from tests.e2e.cluster import ROOT, Cluster
from tests.e2e.jobs import BUCKET, Team
from tests.e2e.software import ENDPOINT, KEY, RELEASE, SECRET, SYSTEM, gentrain
from tests.test_docs import commands

PAGE = ROOT / "docs" / "start" / "cluster.md"


def test_from_an_empty_cluster_to_a_trained_model(team: Team, cluster: Cluster) -> None:
    """In the team's namespace, with 60 steps, and else as the page has it."""
    kuberay, install, profile, secret, submit = commands(PAGE)
    assert kuberay.split()[:3] == ["helm", "install", "kuberay-operator"]
    cluster.run("helm", "uninstall", RELEASE, "--namespace", SYSTEM, "--wait")
    cluster.kubectl("delete", "namespace", SYSTEM)
    registry, _, tag = cluster.images.operator.removesuffix("/").rpartition("/gentrain-operator:")
    given = {"REGISTRY": registry, "TAG": tag, "BUCKET": BUCKET, "AWS_ENDPOINT_URL": ENDPOINT}
    given |= {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
    team.kubectl("delete", "secret", "bucket")
    try:
        shell(cluster, install.replace("gentrain-trainer:$TAG", f"gentrain-trainer:{cluster.images.trainer.rpartition(':')[2]}"), given)
        shell(cluster, profile, given)
        shell(cluster, f"{secret} -n {team.namespace}", given)
        short = "--set training.steps=60 --set evaluation.everySteps=30"
        said = shell(cluster, f"{submit} -n {team.namespace} {short}", given)
        assert "Succeeded" in said
        assert team.status("vae-digits")["progress"]["step"] == 60
    finally:
        gentrain(cluster, chart=ROOT / "charts" / "gentrain")


def shell(cluster: Cluster, line: str, variables: dict[str, str]) -> str:
    exported = "".join(f"export {name}={shlex.quote(value)}; " for name, value in variables.items())
    done = cluster.run("bash", "-c", exported + line, timeout=900)
    return done.stdout + done.stderr


def test_the_manifest_is_the_laptops_with_a_bucket() -> None:
    laptop = yaml.safe_load((ROOT / "manifests" / "samples" / "vae-digits.yaml").read_text())["spec"]
    cluster = yaml.safe_load((ROOT / "manifests" / "cluster" / "vae-digits.yaml").read_text())["spec"]
    assert {env["name"] for env in cluster.pop("pod")["env"]} >= {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"}
    assert cluster["compute"].pop("profiles") == ["small-cpu"]
    assert cluster["checkpoints"].pop("uri").startswith("s3://")
    assert cluster == laptop
