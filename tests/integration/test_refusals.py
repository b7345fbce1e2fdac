"""What the API server refuses of a job's children is said, with an event and an explanation, and heals by itself."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from gentrain_operator import refusals
from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import CONFIGMAPS, JOBS, RAYJOBS, Object
from gentrain_operator.refusals import refusal
from tests.cluster.at_work import Bench, manifest
from tests.cluster.control_plane import ControlPlane
from trainjobs.cli.cluster.api import Api, login
from trainjobs.cli.cluster.explain import look
from trainjobs.cli.cluster.reasons import explanation
from trainjobs.cli.cluster.server import Cluster
from trainjobs.cli.cluster.target import Target

pytestmark = pytest.mark.slow

_names = itertools.count(1)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "AGAIN", (0.2, 1.0))


def explained(bench: Bench, name: str = "job") -> Any:
    """What `gtj explain` says."""
    target = Target(bench.namespace, None, str(bench.cluster.kubeconfig))
    found = login(target)
    cluster = Cluster(Api(found.configuration, (5, 30)), target, bench.namespace, found.where)
    return explanation(look(cluster, cluster.job(name), 0.0))


def events(bench: Bench) -> set[str]:
    listed = json.loads(bench.cluster.kubectl("-n", bench.namespace, "get", "events.v1.events.k8s.io", "-o", "json").stdout)
    return {one["reason"] for one in listed["items"] if one["regarding"]["kind"] == "GenerativeTrainingJob"}


def quota(bench: Bench, what: str, hard: int) -> Object:
    body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "jobs"}, "spec": {"hard": {what: str(hard)}}}
    bench.cluster.kubectl("-n", bench.namespace, "apply", "-f", "-", stdin=json.dumps(body))
    # No controller counts here; what is used has to be known before the server compares.
    status = {**body, "status": {"hard": {what: str(hard)}, "used": {what: "0"}}}
    bench.cluster.kubectl("-n", bench.namespace, "replace", "--subresource=status", "-f", "-", stdin=json.dumps(status))
    return body


@pytest.mark.parametrize("what", ["count/rayjobs.ray.io", "count/configmaps"])
def test_a_quota_is_said_and_heals(bench: Bench, what: str) -> None:
    quota(bench, what, 0)
    bench.apply()
    bench.until(lambda: bench.reason("ResourcesReady") == "QuotaExceeded")
    assert bench.status()["phase"] == "Pending"
    assert "exceeded quota: jobs" in bench.status()["message"]
    bench.until(lambda: "QuotaExceeded" in events(bench))
    found = explained(bench)
    assert (found.code, found.fault) == ("GTJ0203", True)
    assert "quota" in found.what
    assert bench.kuberay.rayjobs() == {}
    assert not [one for one in bench.client.list(CONFIGMAPS, bench.namespace)["items"] if one["metadata"]["name"].startswith("job-")]
    bench.cluster.kubectl("-n", bench.namespace, "delete", "resourcequota", "jobs")
    bench.rayjob("job-a1")
    assert bench.phase("Provisioning")["attempts"] == 1


def policy(bench: Bench, kind: str, expression: str) -> str:
    """A ValidatingAdmissionPolicy for this namespace, as shops have them; its name."""
    name = f"policy-{next(_names)}-{bench.namespace}"
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE"], "resources": [kind]}
    spec = {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": expression, "message": "every object needs a team"}],
    }
    group = "admissionregistration.k8s.io/v1"
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": bench.namespace}}}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": where}
    for one, content in (("ValidatingAdmissionPolicy", spec), ("ValidatingAdmissionPolicyBinding", binding)):
        body = {"apiVersion": group, "kind": one, "metadata": {"name": name}, "spec": content}
        bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(body))
    return name


def refused_by(bench: Bench, resource: str, body: Object) -> bool:
    found = bench.cluster.kubectl("-n", bench.namespace, "create", "--dry-run=server", "-f", "-", stdin=json.dumps(body), check=False)
    return "every object needs a team" in found.stderr


@pytest.mark.parametrize("kind", ["rayjobs", "configmaps"])
def test_a_policy_that_wants_a_label_is_said_and_heals(bench: Bench, kind: str) -> None:
    name = policy(bench, kind, "has(object.metadata.labels) && 'team' in object.metadata.labels")
    probe = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "probe"}}
    if kind == "rayjobs":
        spec = {"rayClusterSpec": {"headGroupSpec": {"template": {"spec": {"containers": [{"name": "x", "image": "x"}]}}}}}
        probe = {"apiVersion": RAYJOBS.api_version, "kind": RAYJOBS.kind, "metadata": {"name": "probe"}, "spec": spec}
    bench.until(lambda: refused_by(bench, kind, probe))  # the server takes a moment
    bench.apply()
    bench.until(lambda: bench.reason("Accepted") == "AdmissionDenied")
    assert "every object needs a team" in bench.status()["message"]
    bench.until(lambda: "AdmissionDenied" in events(bench))
    found = explained(bench)
    assert found.code == "GTJ0305"
    assert any("every object needs a team" in line for line in found.why)
    assert found.do
    bench.cluster.kubectl("delete", "validatingadmissionpolicybinding", name)
    bench.cluster.kubectl("delete", "validatingadmissionpolicy", name)
    bench.rayjob("job-a1")
    bench.until(lambda: bench.reason("Accepted") == "Accepted")


def test_a_refusal_is_not_asked_about_without_pause(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds pass between two tries, whatever happens to the status meanwhile."""
    monkeypatch.setattr(refusals, "AGAIN", (60.0, 300.0))
    tried: list[str] = []
    create = Client.create

    def counted(self: Client, resource: Any, namespace: Any, body: Object, **more: Any) -> Object:
        if resource is RAYJOBS:
            tried.append(body["metadata"]["name"])
        return create(self, resource, namespace, body, **more)

    monkeypatch.setattr(Client, "create", counted)
    quota(bench, "count/rayjobs.ray.io", 0)
    bench.apply()
    bench.until(lambda: bench.reason("ResourcesReady") == "QuotaExceeded")
    version = bench.job()["metadata"]["resourceVersion"]
    bench.apply("other")
    bench.until(lambda: bench.reason("ResourcesReady", "other") == "QuotaExceeded")
    assert tried.count("job-a1") <= 3  # once, once after its own status, and perhaps once for the list that came first
    assert bench.job()["metadata"]["resourceVersion"] == version


@pytest.mark.parametrize(
    ("pod", "words"),
    [
        ({"volumes": [{"claimName": "a", "mountPath": "/tmp"}]}, "mountPath is taken"),
        ({"volumes": [{"claimName": "a", "mountPath": "/d"}, {"claimName": "b", "mountPath": "/d/"}]}, "two mounts at one mountPath"),
        ({"env": [{"name": "RAY_AUTH_MODE", "value": "none"}]}, "RAY_AUTH_"),
        ({"env": [{"name": "HOME", "value": "/x"}]}, "HOME"),
    ],
)
def test_the_server_refuses_reserved_paths_and_variables(installed: ControlPlane, namespace: str, pod: Object, words: str) -> None:
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    with pytest.raises(ApiError) as found:
        client.create(JOBS, namespace, manifest("job", pod=pod), dry_run=True)
    assert found.value.status == 422
    assert "GTJ0129" in found.value.message
    assert words in found.value.message


def test_the_configmaps_of_attempts_before_the_last_are_gone(bench: Bench) -> None:
    bench.apply(recovery={"maxRetries": 9})
    for attempt in (1, 2, 3):
        bench.kuberay.fail(bench.running(attempt=attempt), "Traceback")
    bench.rayjob("job-a4")

    def left() -> list[str]:
        return sorted(
            one["metadata"]["name"][:6]
            for one in bench.client.list(CONFIGMAPS, bench.namespace)["items"]
            if one["metadata"]["name"].startswith("job-")
        )

    bench.until(lambda: left() == ["job-a3", "job-a4"])


def test_every_kind_of_refusal_has_a_reason() -> None:
    found = [
        refusal(ApiError(status, "X", text), "RayJob")
        for status, text in [
            (403, 'rayjobs.ray.io "x" is forbidden: exceeded quota: q'),
            (403, 'rayjobs.ray.io is forbidden: User "u" cannot create resource "rayjobs"'),
            (403, "rayjobs.ray.io \"x\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no"),
            (403, "unable to create new content in namespace x because it is being terminated"),
            (409, 'admission webhook "x" denied the request: no'),
            (413, "Request entity too large"),
            (422, "spec.x: Invalid value"),
            (500, 'Internal error occurred: failed calling webhook "x": timeout'),
            (404, "404 page not found"),
        ]
    ]
    assert [one.reason if one else None for one in found] == [
        *("QuotaExceeded", "Forbidden", "AdmissionDenied", "NamespaceTerminating", "AdmissionDenied"),
        *("TooLarge", "Invalid", "WebhookFailed", "KubeRayMissing"),
    ]
    for status, text in [(0, "down"), (409, "already exists"), (429, "slow"), (500, "etcd"), (503, "")]:
        assert refusal(ApiError(status, "X", text), "RayJob") is None
