"""Pods that the cluster does not let the real KubeRay create: what the job says, in whose words, and that it goes on by itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from gentrain_operator.kube.resource import PODS, RAYCLUSTERS, Object
from tests.cluster.at_work import Bench, over_cluster
from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane, control_plane, free_ports
from tests.cluster.kueue import RayOperator

pytestmark = pytest.mark.slow
bench = over_cluster
GROUP = "admissionregistration.k8s.io/v1"
WORDS = "every pod needs a cost centre"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]) -> Iterator[ControlPlane]:
    """A control plane of this module's own, with KubeRay at work."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(control_plane(tmp_path_factory.mktemp("refused"), say))
            kuberay = RayOperator(running, say)
        except Unavailable as reason:
            pytest.skip(str(reason))
        running.define(kuberay.definitions, kinds=3)
        stack.callback(kuberay.stop)
        kuberay.start()
        yield running


def here(bench: Bench) -> Object:
    return {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": bench.namespace}}}


PODS_MADE = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
CLUSTERS_MADE = {"apiGroups": ["ray.io"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["rayclusters"]}


def policy(bench: Bench, rule: Object) -> list[Object]:
    """A ValidatingAdmissionPolicy that takes none of these of this namespace."""
    name = f"centre-{bench.namespace}"
    spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false", "message": WORDS}]}
    binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": here(bench)}
    return [
        {"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name}, "spec": spec},
        {"apiVersion": GROUP, "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": binding},
    ]


def nobody(bench: Bench, rule: Object) -> list[Object]:
    """A webhook for these of this namespace where nobody listens."""
    (port,) = free_ports(1)
    hook = {
        "name": "nobody.example.org",
        "clientConfig": {"url": f"https://127.0.0.1:{port}/"},
        "rules": [rule],
        "failurePolicy": "Fail",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        **here(bench),
    }
    return [
        {"apiVersion": GROUP, "kind": "MutatingWebhookConfiguration", "metadata": {"name": f"down-{bench.namespace}"}, "webhooks": [hook]}
    ]


def takes(bench: Bench, rule: Object) -> bool:
    """Whether the namespace takes one of these now."""
    spec: Object = {"containers": [{"name": "a", "image": "a"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": spec}
    groups = {"headGroupSpec": {"rayStartParams": {}, "template": {"spec": spec}}}
    cluster = {"apiVersion": RAYCLUSTERS.api_version, "kind": RAYCLUSTERS.kind, "metadata": {"name": "probe"}, "spec": groups}
    dry = ("-n", bench.namespace, "create", "--dry-run=server", "-f", "-")
    return bench.cluster.kubectl(*dry, stdin=json.dumps(pod if rule is PODS_MADE else cluster), check=False).returncode == 0


@pytest.mark.parametrize("rule", [PODS_MADE, CLUSTERS_MADE], ids=["pods", "rayclusters"])
@pytest.mark.parametrize(
    ("made", "begins", "words"),
    [
        (policy, "GTJ0303 the cluster does not allow the job's pods: ", WORDS),
        (nobody, "GTJ0303 a webhook that must agree to the job's pods fails: ", 'failed calling webhook "nobody.example.org"'),
    ],
    ids=["policy", "nobody"],
)
def test_what_is_refused_is_said_in_the_refusals_words_and_made_once_it_is_not(
    bench: Bench, made: Callable[[Bench, Object], list[Object]], begins: str, words: str, rule: Object
) -> None:
    assert takes(bench, rule)
    objects = made(bench, rule)
    for one in objects:
        bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(one))
    bench.until(lambda: not takes(bench, rule))
    bench.apply()
    bench.until(lambda: bench.reason("ResourcesReady") == "PodsForbidden")
    (said,) = [one["message"] for one in bench.status()["conditions"] if one["type"] == "ResourcesReady"]
    assert said.startswith(begins)
    assert words in said
    assert not bench.client.list(PODS, bench.namespace)["items"]
    for one in objects:
        bench.cluster.kubectl("delete", one["kind"], one["metadata"]["name"])
    bench.until(lambda: len(bench.client.list(PODS, bench.namespace)["items"]) == 3)
    bench.until(lambda: bench.reason("ResourcesReady") == "ScalingUp")
    assert bench.status()["attempts"] == 1
