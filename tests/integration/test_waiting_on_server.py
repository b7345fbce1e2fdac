"""What autoscalers say about a pod, as a real API server keeps it: written through either API for events, found by the pod's UID."""

from __future__ import annotations

from typing import Any

import pytest

from gentrain_operator import autoscaler
from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.resource import EVENTS, PODS, Object, Resource
from gentrain_operator.pods import told
from tests.cluster.control_plane import ControlPlane
from tests.operator.test_decide import UNSCHEDULABLE

pytestmark = pytest.mark.slow
CORE = Resource("", "v1", "events", "Event")


def pod(client: Client, namespace: str, name: str) -> Object:
    container: dict[str, Any] = {"name": "c", "image": "i"}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"containers": [container]}}
    made = client.create(PODS, namespace, body)
    return {**made, "status": {"conditions": UNSCHEDULABLE}}


def test_events_of_one_pod_through_both_apis(installed: ControlPlane, namespace: str) -> None:
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    try:
        mine, other = pod(client, namespace, "mine"), pod(client, namespace, "other")
        uid = mine["metadata"]["uid"]
        about = {"kind": "Pod", "apiVersion": "v1", "namespace": namespace, "name": "mine", "uid": uid}
        # As the Cluster Autoscaler writes them, by client-go's first recorder.
        old: Object = {
            **{"apiVersion": "v1", "kind": "Event", "metadata": {"name": "mine.1"}, "involvedObject": about, "type": "Normal"},
            **{"reason": "TriggeredScaleUp", "message": "pod triggered scale-up: [{g 0->1 (max: 4)}]", "count": 2},
            **{"source": {"component": "cluster-autoscaler"}, "lastTimestamp": "2026-01-01T12:00:00Z"},
        }
        client.create(CORE, namespace, old)
        new: Object = {
            **{"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "mine.2"}, "regarding": about, "type": "Warning"},
            **{
                "reason": "FailedScheduling",
                "note": 'all available instance types exceed limits for nodepool: "g"',
                "action": "Scheduling",
            },
            **{"reportingController": "karpenter", "reportingInstance": "k-0", "eventTime": "2026-01-01T12:01:00.000000Z"},
        }
        client.create(EVENTS, namespace, new)
        found = told(client, namespace, [mine, other])
        assert {key: len(events) for key, events in found.items()} == {uid: 2, other["metadata"]["uid"]: 0}
        word = autoscaler.last(found[uid])
        assert word is not None
        assert (word.kind, word.who) == ("sold out", "karpenter")
        first = autoscaler.last([one for one in found[uid] if one["reason"] == "TriggeredScaleUp"])
        assert first is not None
        assert (first.kind, first.who) == ("coming", "cluster-autoscaler")
    finally:
        client.close()
