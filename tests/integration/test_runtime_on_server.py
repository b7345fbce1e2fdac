"""The runtime against a real API server: what a fake would only repeat of our beliefs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gentrain_operator.kube import client as client_module
from gentrain_operator.kube.apply import STATUS_MANAGER, Taken, create_child, write_status
from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.events import Event, Recorder
from gentrain_operator.kube.lease import Lease
from gentrain_operator.kube.reflector import Reflector
from gentrain_operator.kube.resource import CONFIGMAPS, JOBS, LEASES, Object, Resource
from gentrain_operator.kube.store import Key, Store
from tests.cluster.control_plane import ControlPlane
from tests.cluster.half_open import half_open

pytestmark = pytest.mark.slow


@pytest.fixture
def client(cluster: ControlPlane) -> Iterator[Client]:
    connected = Client(from_kubeconfig(str(cluster.kubeconfig)))
    yield connected
    connected.close()


def configmap(name: str, **data: str) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def vae(name: str) -> Object:
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 10}}
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": name}, "spec": spec}


def eventually(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    """Waits for what another process or thread does; the value once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)
    return value


# -- client


def test_as_whom_a_kubeconfig_says_is_who_asks(cluster: ControlPlane, namespace: str) -> None:
    """`as` with groups, a uid and more: kubectl honours it, and the official Python client does not."""
    content = json.loads(cluster.kubeconfig.read_text())
    content["users"][0]["user"] |= {"as": "jane", "as-uid": "7", "as-groups": ["a", "b"], "as-user-extra": {"acme.io/team": ["x", "y"]}}
    path = cluster.folder / "acting.kubeconfig"
    path.write_text(json.dumps(content))
    client = Client(from_kubeconfig(str(path)))
    whoami = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
    try:
        body = {"apiVersion": whoami.api_version, "kind": whoami.kind, "metadata": {}}
        user = client.create(whoami, None, body)["status"]["userInfo"]
        assert (user["username"], user["uid"], user["extra"]) == ("jane", "7", {"acme.io/team": ["x", "y"]})
        assert {"a", "b"} <= set(user["groups"])
        with pytest.raises(ApiError, match='User "jane" cannot list resource'):
            client.list(CONFIGMAPS, namespace)
    finally:
        client.close()


def test_the_token_is_sent_and_a_rotated_one_is_used(cluster: ControlPlane, namespace: str) -> None:
    """A release of the client once sent no header at all in a cluster: this looks at the one that is installed."""
    configuration = from_kubeconfig(str(cluster.kubeconfig))
    configuration.refresh_api_key_hook = None
    configuration.api_key = {"BearerToken": "Bearer wrong"}
    client = Client(configuration)
    with pytest.raises(ApiError) as refused:
        client.list(CONFIGMAPS, namespace)
    assert refused.value.status == 401
    configuration.refresh_api_key_hook = lambda config: config.api_key.update(BearerToken=f"Bearer {cluster.admin_token}")
    assert client.list(CONFIGMAPS, namespace)["kind"] == "ConfigMapList"
    assert len(client.list(CONFIGMAPS, namespace, limit=1)["items"]) <= 1


def test_refusals_say_what_kind_they_are(client: Client, namespace: str) -> None:
    with pytest.raises(ApiError) as missing:
        client.get(CONFIGMAPS, namespace, "nothing")
    assert missing.value.not_found
    client.create(CONFIGMAPS, namespace, configmap("a"))
    with pytest.raises(ApiError) as taken:
        client.create(CONFIGMAPS, namespace, configmap("a"))
    assert taken.value.conflict
    with pytest.raises(ApiError) as unknown:
        client.create(CONFIGMAPS, namespace, {**configmap("b"), "unknown": 1})
    assert unknown.value.refused
    assert "unknown" in unknown.value.message


def test_a_stale_write_is_a_conflict(client: Client, namespace: str) -> None:
    old = client.create(CONFIGMAPS, namespace, configmap("a"))
    client.merge(CONFIGMAPS, namespace, "a", {"data": {"x": "1"}})
    with pytest.raises(ApiError) as stale:
        client.replace(CONFIGMAPS, namespace, {**old, "data": {"x": "2"}})
    assert stale.value.conflict


def test_deleting_needs_the_right_uid_and_is_repeatable(client: Client, namespace: str) -> None:
    created = client.create(CONFIGMAPS, namespace, configmap("a"))
    client.delete(CONFIGMAPS, namespace, "a", uid="00000000-0000-0000-0000-000000000000")
    assert client.get(CONFIGMAPS, namespace, "a")["metadata"]["uid"] == created["metadata"]["uid"]
    for _ in range(2):
        client.delete(CONFIGMAPS, namespace, "a", uid=created["metadata"]["uid"])
    with pytest.raises(ApiError):
        client.get(CONFIGMAPS, namespace, "a")


def test_requests_are_observed_by_verb_and_resource(cluster: ControlPlane, namespace: str, definitions: ControlPlane) -> None:
    seen: list[tuple[str, str, int]] = []
    client = Client(from_kubeconfig(str(cluster.kubeconfig)), lambda verb, resource, status, seconds: seen.append((verb, resource, status)))
    job = client.create(JOBS, namespace, vae("watched"))
    write_status(client, JOBS, job, {"phase": "Pending"})
    with pytest.raises(ApiError):
        client.get(JOBS, namespace, "nothing")
    plural = "generativetrainingjobs"
    assert seen == [("create", plural, 201), ("patch", f"{plural}/status", 200), ("get", plural, 404)]


def test_a_silent_connection_is_noticed(cluster: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "WATCH_TIMEOUT", (1, 0.5))
    with half_open(cluster.port) as proxy:
        kubeconfig = cluster.write_kubeconfig("through-proxy", cluster.admin_token, f"https://127.0.0.1:{proxy.port}")
        client = Client(from_kubeconfig(str(kubeconfig)), timeout=(1, 0.5))
        version = client.list(CONFIGMAPS, namespace)["metadata"]["resourceVersion"]
        watch = client.watch(CONFIGMAPS, namespace, version=version, seconds=240)
        proxy.silent = True
        with pytest.raises(ApiError) as silence:
            list(watch)
        assert silence.value.status == 0
        with pytest.raises(ApiError, match="Unreachable"):
            client.list(CONFIGMAPS, namespace)


def test_a_blocked_watch_can_be_ended_from_another_thread(client: Client, namespace: str) -> None:
    version = client.list(CONFIGMAPS, namespace)["metadata"]["resourceVersion"]
    watch = client.watch(CONFIGMAPS, namespace, version=version, seconds=240)
    events = iter(watch)
    client.create(CONFIGMAPS, namespace, configmap("first"))
    assert next(events)["object"]["metadata"]["name"] == "first"
    outcome: list[str] = []

    def read() -> None:
        try:
            outcome.append(f"ended after {len(list(events))}")
        except ApiError as error:
            outcome.append(error.reason)

    reader = threading.Thread(target=read)
    reader.start()
    watch.close()
    reader.join(5)
    assert not reader.is_alive()
    assert len(outcome) == 1


# -- reflector


@pytest.fixture
def follow() -> Iterator[Callable[..., tuple[Store, Reflector]]]:
    running: list[Reflector] = []

    def start(client: Client, namespace: str, changes: list[str] | None = None) -> tuple[Store, Reflector]:
        store, heard = Store(), changes if changes is not None else []
        reflector = Reflector(client, CONFIGMAPS, store, lambda obj: heard.append(obj["metadata"]["name"]), namespace=namespace)
        reflector.start()
        running.append(reflector)
        assert reflector.synced.wait(10)
        return store, reflector

    yield start
    for reflector in running:
        reflector.stop()
        assert not reflector._thread.is_alive()


def test_a_store_follows_the_server(client: Client, namespace: str, follow: Callable[..., tuple[Store, Reflector]]) -> None:
    client.create(CONFIGMAPS, namespace, configmap("before"))
    changes: list[str] = []
    store, _ = follow(client, namespace, changes)
    assert "before" in changes
    created = client.create(CONFIGMAPS, namespace, configmap("after", x="1"))
    eventually(lambda: store.get(Key(namespace, "after")))
    client.merge(CONFIGMAPS, namespace, "after", {"data": {"x": "2"}})
    eventually(lambda: (store.get(Key(namespace, "after")) or {})["data"]["x"] == "2")
    client.delete(CONFIGMAPS, namespace, "after", uid=created["metadata"]["uid"])
    eventually(lambda: store.get(Key(namespace, "after")) is None)
    kept = store.get(Key(namespace, "before"))
    assert kept is not None
    assert "managedFields" not in kept["metadata"]


def test_a_restarted_server_and_an_expired_version_lose_nothing(
    own_cluster: ControlPlane, follow: Callable[..., tuple[Store, Reflector]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gentrain_operator.kube.reflector.BACKOFF", (0.02, 0.2))
    client = Client(from_kubeconfig(str(own_cluster.kubeconfig)))
    doomed = client.create(CONFIGMAPS, "default", configmap("doomed"))
    store, _ = follow(client, "default")
    own_cluster.stop("kube-apiserver")
    own_cluster.start_apiserver()
    # Changes while the reflector may still be backing off, and the history they stand in compacted away: its version is too old now.
    writer = Client(from_kubeconfig(str(own_cluster.kubeconfig)))
    writer.delete(CONFIGMAPS, "default", "doomed", uid=doomed["metadata"]["uid"])
    made = writer.create(CONFIGMAPS, "default", configmap("made"))
    own_cluster.compact(int(made["metadata"]["resourceVersion"]))
    eventually(lambda: store.get(Key("default", "made")) and store.get(Key("default", "doomed")) is None)


def test_an_old_version_is_told_apart(own_cluster: ControlPlane) -> None:
    client = Client(from_kubeconfig(str(own_cluster.kubeconfig)))
    old = client.create(CONFIGMAPS, "default", configmap("a"))["metadata"]["resourceVersion"]
    new = client.merge(CONFIGMAPS, "default", "a", {"data": {"x": "1"}})["metadata"]["resourceVersion"]
    own_cluster.compact(int(new))
    own_cluster.stop("kube-apiserver")  # its watch cache still knew
    own_cluster.start_apiserver()
    client = Client(from_kubeconfig(str(own_cluster.kubeconfig)))
    with pytest.raises(ApiError) as error:
        list(client.watch(CONFIGMAPS, "default", version=old, seconds=5))
    assert error.value.expired


# -- lease, events, writing


def test_one_of_two_operators_leads_and_hands_over(client: Client, namespace: str) -> None:
    first, second = (Lease(client, namespace, "operator", name) for name in ("first", "second"))
    assert first.attempt()
    assert not second.attempt()
    assert first.attempt()
    first.release()
    assert second.attempt()
    spec = client.get(LEASES, namespace, "operator")["spec"]
    assert (spec["holderIdentity"], spec["leaseTransitions"]) == ("second", 1)


def test_kubectl_shows_events_with_their_count(client: Client, cluster: ControlPlane, namespace: str, definitions: ControlPlane) -> None:
    job = client.create(JOBS, namespace, vae("noisy"))
    recorder = Recorder(client, "operator-0")
    for _ in range(3):
        recorder.write(job, Event("Warning", "Unschedulable", "Scheduling", "0/3 nodes\nfit"))
    described = cluster.kubectl("-n", namespace, "describe", "gtj", "noisy").stdout
    line = next(line for line in described.splitlines() if "Unschedulable" in line)
    assert "x3" in line
    assert "0/3 nodes fit" in line


def test_the_status_is_ours_and_the_spec_is_not(client: Client, cluster: ControlPlane, namespace: str, definitions: ControlPlane) -> None:
    job = client.create(JOBS, namespace, vae("owned"))
    assert write_status(client, JOBS, job, {"phase": "Pending", "message": "one", "summary": {"loss": "1"}})
    with pytest.raises(ApiError) as stale:
        write_status(client, JOBS, job, {"phase": "Pending"})
    assert stale.value.conflict
    assert write_status(client, JOBS, client.get(JOBS, namespace, "owned"), {"phase": "Running"})
    now = client.get(JOBS, namespace, "owned")
    assert now["status"] == {"phase": "Running"}
    assert now["spec"] == job["spec"]
    assert not write_status(client, JOBS, now, {"phase": "Running"})
    managers = {entry["manager"]: entry for entry in now["metadata"]["managedFields"]}
    assert managers[STATUS_MANAGER]["subresource"] == "status"


def test_a_status_for_a_job_that_was_made_again_is_refused(client: Client, namespace: str, definitions: ControlPlane) -> None:
    old = client.create(JOBS, namespace, vae("again"))
    client.delete(JOBS, namespace, "again", uid=old["metadata"]["uid"])
    client.create(JOBS, namespace, vae("again"))
    with pytest.raises(ApiError) as refused:
        write_status(client, JOBS, old, {"phase": "Failed"})
    assert refused.value.conflict
    assert "status" not in client.get(JOBS, namespace, "again")


def test_a_status_for_a_job_that_is_gone_makes_none(client: Client, namespace: str, definitions: ControlPlane) -> None:
    old = client.create(JOBS, namespace, vae("gone"))
    client.delete(JOBS, namespace, "gone", uid=old["metadata"]["uid"])
    with pytest.raises(ApiError) as refused:
        write_status(client, JOBS, old, {"phase": "Failed"})
    assert refused.value.not_found
    assert client.list(JOBS, namespace)["items"] == []


def test_children_are_made_once_and_never_adopted(client: Client, namespace: str, definitions: ControlPlane) -> None:
    owner = client.create(JOBS, namespace, vae("parent"))
    first = create_child(client, CONFIGMAPS, owner, configmap("child"))
    assert create_child(client, CONFIGMAPS, owner, configmap("child"))["metadata"]["uid"] == first["metadata"]["uid"]
    client.create(CONFIGMAPS, namespace, configmap("theirs"))
    with pytest.raises(Taken):
        create_child(client, CONFIGMAPS, owner, configmap("theirs"))


def test_the_server_is_asked_over_a_kept_connection(cluster: ControlPlane, namespace: str) -> None:
    """Fifty requests, far fewer connections: the TLS handshake costs more than most requests."""
    client = Client(from_kubeconfig(str(cluster.kubeconfig)))
    for _ in range(50):
        client.list(CONFIGMAPS, namespace)
    pool = client._api.rest_client.pool_manager.connection_from_url(cluster.url)
    assert pool.num_connections == 1
    assert pool.num_requests == 50
