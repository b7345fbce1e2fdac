"""The chart on a real API server: what it renders is accepted, and installs, upgrades and uninstalls without taking anybody's jobs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.chart.helm import CHART, NAMESPACE, RELEASE, ROOT, helm, objects, on, text
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.slow

JOB = {
    "apiVersion": "gentrain.dev/v1alpha1",
    "kind": "GenerativeTrainingJob",
    "metadata": {"name": "mine", "namespace": "default"},
    "spec": {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 10}, "compute": {"gpusPerWorker": 0}},
}
DEFINITION = "generativetrainingjobs.gentrain.dev"


def get(cluster: ControlPlane, *arguments: str) -> Any:
    return json.loads(cluster.kubectl("get", *arguments, "-o", "json").stdout)


def there(cluster: ControlPlane, *arguments: str) -> bool:
    return bool(cluster.kubectl("get", *arguments, "--ignore-not-found", "-o", "name").stdout.strip())


def test_the_server_accepts_every_rendering(server: ControlPlane) -> None:
    server.kubectl("create", "namespace", NAMESPACE)
    server.kubectl("create", "namespace", "team")
    server.kubectl("apply", "-f", str(ROOT / "manifests" / "crd"))
    server.wait_for_kinds("gentrain.dev", 2)
    for switches in (
        "replicas=2",
        "watchNamespaces={team}",
        "networkPolicy.jobs.namespaces={team},networkPolicy.jobs.from[0].namespaceSelector.matchLabels.a=b",
        "metrics.dashboards.enabled=true,metrics.dashboards.annotations.folder=x",
        "profiles.cpu.node.memory=8Gi,profiles.cpu.provider=aws",
        "crds.keep=false,rbac.userRoles=false,podDisruptionBudget.enabled=false",
        "imagePullSecrets[0].name=pull,priorityClassName=high,nodeSelector.a=b,tolerations[0].key=k,podAnnotations.x=y",
        "networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.a=b,serviceAccount.annotations.x=y",
    ):
        done = server.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text(f"--set={switches}"))
        assert "deployment.apps/gentrain created (server dry run)" in done.stdout, switches
        # Pods of these would be warned about.
        assert "Warning" not in done.stderr, switches


def test_the_manifests_that_ship_are_valid(server: ControlPlane) -> None:
    """In the order of the documentation: definitions and operator without Helm, then profiles, then jobs."""
    manifests = ROOT / "manifests"
    server.kubectl("apply", "--server-side", "-f", str(manifests / "crd"), "-f", str(manifests / "install"))
    server.wait_for_kinds("gentrain.dev", 2)
    assert there(server, "-n", NAMESPACE, "deployment", RELEASE)
    server.kubectl("apply", "--server-side", "--validate=strict", "-f", str(manifests / "restricted"))
    assert [one["metadata"]["name"] for one in get(server, "mutatingadmissionpolicies")["items"]] == [f"{NAMESPACE}-{RELEASE}-submitter"]
    server.kubectl("apply", "--validate=strict", "-f", str(manifests / "profiles"))
    assert len(get(server, "cprof")["items"]) == 7
    server.kubectl("apply", "--validate=strict", "-f", str(manifests / "samples"))
    jobs = get(server, "gtj")["items"]
    assert {family for one in jobs for family in ("gan", "vae", "diffusion", "language") if family in one["spec"]} == {
        *("gan", "vae", "diffusion", "language")
    }
    # A generic node does: nobody has to have GPUs or a profile for a first job.
    assert {one["spec"]["compute"].get("gpusPerWorker") for one in jobs} == {0}
    assert not [one for one in jobs if one["spec"]["compute"].get("profiles")]


def test_the_operators_pod_passes_the_restricted_standard(server: ControlPlane) -> None:
    server.kubectl("create", "namespace", "strict")
    server.kubectl("label", "namespace", "strict", "pod-security.kubernetes.io/enforce=restricted")
    template = objects()["Deployment", "gentrain"]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "strict"}, "spec": template["spec"]}
    assert template["spec"]["securityContext"]["runAsUser"] == 65532
    server.kubectl("create", "-f", "-", stdin=json.dumps(pod))
    # The proof that this proves something.
    del template["spec"]["securityContext"]["seccompProfile"]
    refused = server.kubectl("create", "-f", "-", stdin=json.dumps({**pod, "metadata": {"name": "y", "namespace": "strict"}}), check=False)
    assert "seccompProfile" in refused.stderr


def test_install_upgrade_and_uninstall_keep_the_jobs(server: ControlPlane, tmp_path: Path) -> None:
    profiles = "--set=profiles.cpu.provider=aws"
    shown = on(server, "install", RELEASE, str(CHART), "--create-namespace", profiles)
    assert "The profiles (cpu) are not made yet" in shown
    server.wait_for_kinds("gentrain.dev", 2)
    server.kubectl("apply", "-f", "-", stdin=json.dumps(JOB))
    status = {"status": {"phase": "Running"}}
    server.kubectl("patch", "gtj", "mine", "--subresource=status", "--type=merge", "-p", json.dumps(status))
    before = get(server, "gtj", "mine")

    # The next version has another column and another label, and the profile that could not be made before.
    changed = tmp_path / "changed"
    shutil.copytree(CHART, changed)
    chart = changed / "Chart.yaml"
    chart.write_text(chart.read_text().replace("0.1.0", "0.2.0"))
    definition = changed / "files" / "crd" / "gentrain.dev_generativetrainingjobs.yaml"
    assert "- name: Age" in definition.read_text()
    definition.write_text(definition.read_text().replace("- name: Age", "- name: Since"))
    shown = on(server, "upgrade", RELEASE, str(changed), profiles)
    assert "not made yet" not in shown
    columns = get(server, "crd", DEFINITION)["spec"]["versions"][0]["additionalPrinterColumns"]
    assert columns[-1]["name"] == "Since"
    assert get(server, "cprof", "cpu")["spec"]["provider"] == "aws"
    image = get(server, "-n", NAMESPACE, "deployment", RELEASE)["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "gentrain-operator:0.2.0"
    assert get(server, "gtj", "mine") == before

    on(server, "rollback", RELEASE, "1")
    assert get(server, "gtj", "mine") == before

    on(server, "uninstall", RELEASE)
    assert not there(server, "-n", NAMESPACE, "deployment", RELEASE)
    assert not there(server, "clusterrole", f"{NAMESPACE}-gentrain")
    assert get(server, "gtj", "mine") == before

    # What was kept is taken up again by a release of the same name.
    on(server, "install", RELEASE, str(CHART))
    assert get(server, "gtj", "mine") == before

    # Kept is what the installed release says: told otherwise, the definitions go, and the jobs with them.
    on(server, "upgrade", RELEASE, str(CHART), "--set=crds.keep=false")
    on(server, "uninstall", RELEASE)
    server.kubectl("wait", "--for=delete", f"crd/{DEFINITION}", "--timeout=30s")


def test_definitions_of_somebody_else_are_not_taken_over(server: ControlPlane) -> None:
    server.kubectl("apply", "-f", str(ROOT / "manifests" / "crd"))
    command = ("install", RELEASE, str(CHART), "--create-namespace", f"--kubeconfig={server.kubeconfig}", f"--namespace={NAMESPACE}")
    refused = helm(*command, check=False)
    assert refused.returncode != 0
    assert DEFINITION in refused.stderr or "computeprofiles.gentrain.dev" in refused.stderr
    helm(*command, "--set=crds.enabled=false")
    assert get(server, "crd", DEFINITION)["metadata"].get("annotations", {}).get("helm.sh/resource-policy") is None


def test_what_viewers_and_editors_may(server: ControlPlane) -> None:
    on(server, "install", RELEASE, str(CHART), "--create-namespace")
    for who in ("viewer", "editor"):
        server.kubectl("create", "clusterrolebinding", who, f"--clusterrole={NAMESPACE}-gentrain-{who}", f"--user={who}")

    def may(who: str, verb: str, resource: str, *more: str) -> bool:
        return server.kubectl("auth", "can-i", verb, f"{resource}.gentrain.dev", f"--as={who}", *more, check=False).returncode == 0

    jobs, profiles = "generativetrainingjobs", "computeprofiles"
    assert all(may(who, verb, kind) for who in ("viewer", "editor") for verb in ("get", "list", "watch") for kind in (jobs, profiles))
    assert not any(may("viewer", verb, jobs) for verb in ("create", "update", "patch", "delete"))
    assert all(may("editor", verb, jobs) for verb in ("create", "update", "patch", "delete"))
    assert not may("editor", "create", profiles)
    assert not may("editor", "patch", jobs, "--subresource=status")
