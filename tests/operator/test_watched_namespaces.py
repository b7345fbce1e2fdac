"""Several watched namespaces fill one store, each by a reflector of its own."""

from __future__ import annotations

from gentrain_operator.kube.client import Configuration
from gentrain_operator.kube.resource import JOBS, PROFILES, RAYJOBS, Object
from gentrain_operator.kube.store import Key, Store
from gentrain_operator.main import Operator, Settings


def thing(namespace: str, name: str) -> Object:
    return {"metadata": {"namespace": namespace, "name": name, "resourceVersion": "1"}}


def test_a_list_of_one_namespace_says_nothing_about_another() -> None:
    store = Store()
    store.replace([thing("red", "a")], "red")
    store.replace([thing("blue", "b")], "blue")
    assert [one["metadata"]["name"] for one in store.replace([], "red")] == ["a"]
    assert store.get(Key("blue", "b")) is not None
    assert [one["metadata"]["name"] for one in store.replace([])] == ["b"]


def test_two_reflectors_for_each_namespace_and_one_for_profiles() -> None:
    def kinds(namespace: str | None) -> list[str]:
        operator = Operator(Configuration(), Settings("image", "home", namespace, port=0))
        operator.probes._server.server_close()
        return sorted(one.resource.kind for one in operator.reflectors)

    assert kinds(None) == kinds("red") == sorted(one.kind for one in (JOBS, RAYJOBS, PROFILES))
    assert kinds("red,blue") == sorted(one.kind for one in (JOBS, RAYJOBS, JOBS, RAYJOBS, PROFILES))
