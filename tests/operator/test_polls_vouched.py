"""Whom the operator asks: the pods of a job, and nobody else, whatever a RayJob's status says."""

from __future__ import annotations

from typing import Any, cast

from gentrain_operator.kube.client import Client
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import PODS, Object, Resource
from gentrain_operator.kube.store import Key
from gentrain_operator.polls import Endpoint, Polls, of_a_pod

KEY = Key("team", "job")
OURS, THEIRS = Endpoint("10.0.0.7", 8090, 1, "u"), Endpoint("169.254.169.254", 8090, 1, "u")


class Server:
    """Knows the pods of the job."""

    def __init__(self, *addresses: str) -> None:
        self.addresses, self.asked, self.down = addresses, 0, False

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0) -> Object:
        assert (resource, namespace, labels) == (PODS, "team", "gentrain.dev/job=job")
        self.asked += 1
        if self.down:
            raise ApiError(503, "ServiceUnavailable", "busy")
        return {"items": [{"metadata": {"name": "p"}, "status": {"podIP": address} if address else {}} for address in self.addresses]}


def asking(server: Server) -> tuple[Polls, list[str]]:
    """Polls that write down whom they ask."""
    asked: list[str] = []

    def read(address: str, port: int) -> Any:
        asked.append(address)
        return {"step": 1}

    return Polls(lambda key: None, read=read, vouch=lambda key, endpoint: of_a_pod(cast(Client, server), key, endpoint)), asked


def test_only_the_address_of_a_pod_of_the_job_is_asked() -> None:
    """169.254.169.254 is where clouds hand out credentials."""
    polls, asked = asking(Server("", "10.0.0.7"))
    for endpoint in (THEIRS, OURS):
        polls.follow(KEY, endpoint)
        polls.poll(KEY)
    assert asked == ["10.0.0.7"]
    assert polls.report(KEY) == {"step": 1}


def test_the_server_is_asked_once_for_each_endpoint() -> None:
    server = Server("10.0.0.7")
    polls, asked = asking(server)
    polls.follow(KEY, OURS)
    for _ in range(3):
        polls.poll(KEY)
    assert (server.asked, len(asked)) == (1, 3)
    polls.follow(KEY, Endpoint("10.0.0.7", 8090, 2, "u"))
    polls.poll(KEY)
    assert server.asked == 2


def test_nobody_is_asked_while_it_cannot_be_told() -> None:
    server = Server("10.0.0.7")
    polls, asked = asking(server)
    server.down = True
    polls.follow(KEY, OURS)
    polls.poll(KEY)
    assert asked == []
    server.down = False
    polls.poll(KEY)
    assert asked == ["10.0.0.7"]
