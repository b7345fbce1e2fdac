"""The API server, as plain dicts. The one module that imports `kubernetes`.

Of the official client this uses configuration, credentials and the connection pool, and none of its models: they drop fields
they do not know and cost four times the memory. Every request has a timeout, watches included: on a connection whose other
end silently went away, a read without one waits for ever, and an operator whose watch waits for ever looks healthy.

No request is retried here. Who called knows whether the answer still matters; the work queue retries, with backoff.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlencode

import kubernetes.config
import urllib3
import urllib3.exceptions
from kubernetes.client import configuration as _client
from kubernetes.client.api_client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.config.kube_config import KUBE_CONFIG_DEFAULT_LOCATION, KubeConfigMerger

from gentrain_operator.kube.acting import acting as acting
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import Object, Resource
from gentrain_operator.kube.wire import as_yaml, read, read_lean

TIMEOUT = (5, 30)  # seconds: connect, read
WATCH_TIMEOUT = (5, 90)  # the server sends a bookmark at least every minute
CONNECTIONS = 32
APPLY, MERGE = "application/apply-patch+yaml", "application/merge-patch+json"


class Observer(Protocol):
    """Told of every answered request: verb as in RBAC, plural with "/subresource", HTTP status (0: unreachable), seconds."""

    def __call__(self, verb: str, resource: str, status: int, seconds: float) -> None: ...


def _ignore(verb: str, resource: str, status: int, seconds: float) -> None:
    pass


class Configuration(_client.Configuration):
    """The official client's, and the headers that say as whom requests act: a kubeconfig's `as`, which that client ignores."""

    acting: tuple[tuple[str, str], ...] = ()


def in_cluster() -> Configuration:
    """Credentials of the pod's service account; the token is read again every minute, because it is rotated."""
    configuration = _configuration()
    kubernetes.config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
    return configuration


def from_kubeconfig(path: str | None = None) -> Configuration:
    """Credentials of a kubeconfig; None for KUBECONFIG or ~/.kube/config."""
    configuration = _configuration()
    kubernetes.config.load_kube_config(path, client_configuration=configuration)  # type: ignore[no-untyped-call]
    content = KubeConfigMerger(path or KUBE_CONFIG_DEFAULT_LOCATION).config.value  # type: ignore[no-untyped-call]
    configuration.acting = acting(content, content.get("current-context"))
    return configuration


def _configuration() -> Configuration:
    configuration = Configuration()
    configuration.keep_alive = True
    configuration.retries = False
    configuration.connection_pool_maxsize = CONNECTIONS
    return configuration


class Client:
    """Safe to use from many threads."""

    def __init__(
        self,
        configuration: Configuration,
        observe: Observer = _ignore,
        *,
        timeout: tuple[float, float] = TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = ApiClient(configuration)
        self._api.user_agent = "gentrain-operator"
        self._acting = configuration.acting
        self._observe = observe
        self._timeout = timeout
        self._clock = clock

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        return self._call("get", resource, "GET", resource.path(namespace, name))

    def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        page: str = "",
        version: str = "",
    ) -> Object:
        """One page of a list; `metadata.continue` is the next `page`."""
        query = {"labelSelector": labels, "fieldSelector": fields, "limit": limit or "", "continue": page, "resourceVersion": version}
        return self._call("list", resource, "GET", resource.path(namespace), query, lean=not resource.managed)

    def schema(self, resource: Resource) -> Object:
        """The schema of a kind as the server serves it (OpenAPI v3, which every account may read). ApiError 404 when it serves none."""
        document = self._call("get", resource, "GET", f"/openapi/v3/apis/{resource.group}/{resource.version}")
        for schema in ((document.get("components") or {}).get("schemas") or {}).values():
            if any(one.get("kind") == resource.kind for one in schema.get("x-kubernetes-group-version-kind") or ()):
                found: Object = schema
                return found
        raise ApiError(404, "NotFound", f"the server has no schema of {resource.kind}")

    def create(self, resource: Resource, namespace: str | None, body: Object, *, manager: str = "", dry_run: bool = False) -> Object:
        """Creates; unknown fields are errors, not dropped. ApiError with `conflict` when the name is taken."""
        query = {"fieldManager": manager, "fieldValidation": "Strict", "dryRun": "All" if dry_run else ""}
        return self._call("create", resource, "POST", resource.path(namespace), query, body)

    def apply(self, resource: Resource, namespace: str | None, body: Object, *, manager: str, subresource: str = "") -> Object:
        """Server-side apply: afterwards exactly the fields of `body` are `manager`'s. Takes fields over from other managers."""
        path = resource.path(namespace, body["metadata"]["name"], subresource)
        query = {"fieldManager": manager, "force": "true", "fieldValidation": "Strict"}
        return self._call("patch", resource, "PATCH", path, query, as_yaml(body), APPLY, subresource)

    def merge(self, resource: Resource, namespace: str | None, name: str, patch: Object) -> Object:
        """JSON merge patch: None deletes a field. A metadata.resourceVersion in it makes the patch fail (conflict) on a newer object."""
        return self._call("patch", resource, "PATCH", resource.path(namespace, name), {}, patch, MERGE)

    def replace(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        """Writes the whole object, if it is still at body's resourceVersion; ApiError.conflict otherwise."""
        return self._call("update", resource, "PUT", resource.path(namespace, body["metadata"]["name"]), {}, body)

    def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str, propagation: str = "Background") -> None:
        """Deletes the object with this uid, never another one of the same name. Gone already is fine."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation, "preconditions": {"uid": uid}}
        try:
            self._call("delete", resource, "DELETE", resource.path(namespace, name), {}, body)
        except ApiError as error:
            if not (error.not_found or error.conflict):
                raise

    def watch(self, resource: Resource, namespace: str | None = None, *, labels: str = "", version: str, seconds: int) -> Watch:
        """Events since `version`, for `seconds` at most (the server ends the stream then)."""
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "resourceVersion": version,
            "timeoutSeconds": seconds,
        }
        return Watch(self._open("watch", resource, "GET", resource.path(namespace), query, timeout=WATCH_TIMEOUT))

    def close(self) -> None:
        self._api.rest_client.close()

    def _call(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Object | bytes | None = None,
        content_type: str = "application/json",
        subresource: str = "",
        lean: bool = False,
    ) -> Object:
        response = self._open(verb, resource, method, path, query or {}, body, content_type, subresource)
        try:
            data = response.data
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(error) from error
        return _decoded(data, read_lean if lean else read)

    def _open(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        query: Mapping[str, Any],
        body: Object | bytes | None = None,
        content_type: str = "application/json",
        subresource: str = "",
        timeout: tuple[float, float] | None = None,
    ) -> urllib3.HTTPResponse:
        """Sends the request; the response's body is still to be read. Every status of 400 and above is an ApiError."""
        given = {key: value for key, value in query.items() if value != ""}
        began, status = self._clock(), 0
        try:
            # The query goes into the path: param_serialize would turn its values into types of its own.
            request = self._api.param_serialize(
                method,
                f"{path}?{urlencode(given)}" if given else path,
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
            )
            headers = urllib3.HTTPHeaderDict(request[2])
            for name, value in self._acting:
                headers.add(name, value)  # a line each: a second group stands beside the first
            answer = self._api.call_api(*request[:2], headers, *request[3:5], timeout or self._timeout)
            response: urllib3.HTTPResponse = answer.response
            status = response.status
            if status >= 400:
                raise _refusal(response)
            return response
        except (urllib3.exceptions.HTTPError, ApiException) as error:
            raise _unreachable(error) from error
        finally:
            self._observe(verb, f"{resource.plural}/{subresource}" if subresource else resource.plural, status, self._clock() - began)


class Watch:
    """One watch stream. Iterating blocks; `close`, from any thread, ends it."""

    def __init__(self, response: urllib3.HTTPResponse) -> None:
        self._response = response

    def __iter__(self) -> Iterator[Object]:
        """Events {"type", "object"}. ApiError when the server reports one or the connection breaks; a plain end is the timeout."""
        rest = b""
        try:
            for chunk in self._response.stream(65536):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line:
                        yield _event(line)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            # ValueError: shut down from another thread between two reads
            raise _unreachable(error) from error
        finally:
            self._response.close()

    def close(self) -> None:
        """Makes a blocked read return. Closing the socket would not: the reader keeps waiting for it."""
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # already closed
            self._response.shutdown()


def _event(line: bytes) -> Object:
    event = _decoded(line)
    if event.get("type") == "ERROR":
        status = event.get("object", {})
        raise ApiError(int(status.get("code", 500)), str(status.get("reason", "")), str(status.get("message", "")))
    return event


def _decoded(data: bytes, reader: Callable[[bytes], Any] = read) -> Object:
    try:
        decoded = reader(data)
    except ValueError as error:
        raise ApiError(0, "Unreachable", f"an answer that is not JSON: {data[:100]!r}") from error
    if not isinstance(decoded, dict):
        raise ApiError(0, "Unreachable", f"an answer that is not an object: {data[:100]!r}")
    return decoded


def _unreachable(error: Exception) -> ApiError:
    return ApiError(0, "Unreachable", f"{type(error).__name__}: {error}")


def _refusal(response: urllib3.HTTPResponse) -> ApiError:
    reason, message = str(response.reason), ""
    try:
        status = json.loads(response.data)
        reason, message = str(status["reason"]), str(status["message"])
    except (ValueError, KeyError, TypeError, urllib3.exceptions.HTTPError):
        pass  # a proxy's page, or a connection that broke: the status code has to do
    after = response.headers.get("Retry-After", "")
    return ApiError(response.status, reason, message, float(after) if after.isdigit() else None)
