"""Writing, without fighting: who owns which field, and when nothing needs to be written.

Children are created once and belong to the job that controls them. They are never adopted: a child of the same name that somebody else
made stays theirs, and the job says so. The status is one server-side apply of the whole; it is skipped when it would change nothing,
because every write wakes every watcher, ourselves included.
"""

from __future__ import annotations

from typing import Any, Protocol

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import Object, Resource
from gentrain_operator.kube.store import controller_of

CHILD_MANAGER = "gentrain-operator"
STATUS_MANAGER = "gentrain-operator-status"


class Server(Protocol):
    """What writing needs of kube.client.Client."""

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object: ...
    def create(self, resource: Resource, namespace: str | None, body: Object, *, manager: str = "") -> Object: ...
    def apply(self, resource: Resource, namespace: str | None, body: Object, *, manager: str, subresource: str = "") -> Object: ...


class Taken(Exception):
    """The name of a child belongs to an object that is not ours."""


def owner_reference(owner: Object) -> Object:
    """The reference that makes `owner` the controller of a child: garbage collection deletes the child with it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def create_child(client: Server, resource: Resource, owner: Object, body: Object) -> Object:
    """Creates a child of `owner`, or returns the one that is there already because an answer got lost. Taken when it is not ours."""
    namespace, name = owner["metadata"]["namespace"], body["metadata"]["name"]
    metadata = {**body["metadata"], "namespace": namespace, "ownerReferences": [owner_reference(owner)]}
    try:
        return client.create(resource, namespace, {**body, "metadata": metadata}, manager=CHILD_MANAGER)
    except ApiError as error:
        if not error.conflict:
            raise
        try:
            there = client.get(resource, namespace, name)
        except ApiError as gone:
            # Taken a moment ago and free now: still a conflict, which the next look resolves.
            raise (error if gone.not_found else gone) from None
    controller = controller_of(there)
    if controller is None or controller["uid"] != owner["metadata"]["uid"]:
        raise Taken(f"{resource.kind} {name} exists and is not this job's")
    return there


def write_status(client: Server, resource: Resource, obj: Object, status: dict[str, Any]) -> Object | None:
    """Makes the object's status exactly `status`; the object as it is then, or None when it was so already.

    `status` holds no None and nothing the server would drop. ApiError.conflict when the object is not the one that was looked at.
    """
    if obj.get("status") == status:
        return None
    # The version makes the server refuse a status that was decided on an older state, or for an object of the same name that is gone:
    # the server ignores a uid here. Whoever is refused looks again.
    fields = ("name", "namespace", "resourceVersion")
    metadata = {field: obj["metadata"][field] for field in fields}
    body = {"apiVersion": obj["apiVersion"], "kind": obj["kind"], "metadata": metadata, "status": status}
    return client.apply(resource, metadata["namespace"], body, manager=STATUS_MANAGER, subresource="status")
