"""Whom the operator asks: the pods of a job, and nobody else, whatever a RayJob's status says."""

from __future__ import annotations

from typing import Any, cast

from gentrain_operator.controller import Controller, Stores
from gentrain_operator.kube.client import Client
from gentrain_operator.kube.events import Recorder
from gentrain_operator.kube.resource import PODS, Object, Resource
from gentrain_operator.kube.store import Key, Store
from gentrain_operator.polls import Endpoint, Polls

KEY = Key("team", "job")
JOB: Object = {"metadata": {"name": "job", "namespace": "team", "uid": "u"}}


class Server:
    """Knows the pods of the job."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.asked = addresses, 0

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0) -> Object:
        assert (resource, namespace, labels) == (PODS, "team", "gentrain.dev/job=job")
        self.asked += 1
        return {"items": [{"metadata": {"name": "p"}, "status": {"podIP": address} if address else {}} for address in self.addresses]}


def controller(server: Any) -> Controller:
    stores = Stores(Store(), Store(), Store())
    return Controller(cast(Client, server), stores, cast(Polls, None), cast(Recorder, None), image="i")


def test_only_the_address_of_a_pod_of_the_job_is_asked() -> None:
    """169.254.169.254 is where clouds hand out credentials."""
    server = Server("", "10.0.0.7")
    ours, theirs = Endpoint("10.0.0.7", 8090, 1, "u"), Endpoint("169.254.169.254", 8090, 1, "u")
    under_test = controller(server)
    assert under_test._vouched(KEY, JOB, ours) == ours
    assert under_test._vouched(KEY, JOB, theirs) is None
    assert under_test._vouched(KEY, JOB, None) is None


def test_what_is_known_is_not_looked_up_again() -> None:
    server = Server("10.0.0.7")
    under_test = controller(server)
    for _ in range(3):
        assert under_test._vouched(KEY, JOB, Endpoint("10.0.0.7", 8090, 1, "u"))
    assert server.asked == 1
    under_test._vouched(KEY, JOB, Endpoint("10.0.0.8", 8090, 2, "u"))
    assert server.asked == 2
