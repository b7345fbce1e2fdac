"""The operator's client as a user at a terminal needs it: a kubeconfig's context, field selectors, logs as streams.

The one module of the command line that imports `kubernetes`, and therefore imported late: it takes a third of a second.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kubernetes.config
import urllib3.exceptions
from kubernetes.config.kube_config import KubeConfigMerger

from gentrain_operator.kube.client import TIMEOUT, Client, Configuration, acting, in_cluster
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import PODS, Object, Resource
from trainjobs.api.errors import JobError
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.cli.cluster.target import Target

QUIET = (5.0, 60.0)  # seconds: a log may be silent for as long as it likes, so a stream that times out is opened again by whoever reads it
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Login:
    """Credentials, and in words what they are: for every message about what the server did not do."""

    configuration: Configuration
    namespace: str
    where: str


class Api(Client):
    """See gentrain_operator.kube.client for what holds of every request."""

    def __init__(self, configuration: Configuration, timeout: tuple[float, float] = TIMEOUT) -> None:
        super().__init__(configuration, timeout=timeout)
        self._api.user_agent = "gtj"

    def select(self, resource: Resource, namespace: str | None, fields: str) -> Object:
        """The first 500 objects that a field selector takes."""
        return self._call("list", resource, "GET", resource.path(namespace), {"fieldSelector": fields, "limit": 500})

    def log(self, namespace: str, pod: str, query: dict[str, Any]) -> Iterator[bytes]:
        """A container's log as it comes. TimeoutError when nothing came for a minute, ApiError when it is refused or breaks off."""
        path = PODS.path(namespace, pod, "log")
        response = self._open("get", PODS, "GET", path, query, subresource="log", timeout=QUIET)
        try:
            yield from response.stream(65536)
        except urllib3.exceptions.ReadTimeoutError as error:
            raise TimeoutError from error
        except urllib3.exceptions.HTTPError as error:
            raise ApiError(0, "Unreachable", f"{type(error).__name__}: {error}") from error
        finally:
            response.close()


def login(target: Target) -> Login:
    """From the kubeconfig, or inside a pod without one from its service account. GTJ0302 when there is neither, or it is unusable."""
    path = target.kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    files = [str(Path(part).expanduser()) for part in path.split(os.pathsep) if part]
    if not any(Path(file).exists() for file in files):
        if "KUBERNETES_SERVICE_HOST" in os.environ and target.kubeconfig is None and target.context is None:
            return _of_the_pod(target)
        raise _nowhere("there is no kubeconfig", path, "no such file", "name one with --kubeconfig; your cloud's tool writes it")
    configuration = Configuration()
    configuration.keep_alive, configuration.retries = True, False
    known, name = {}, target.context
    try:
        content = KubeConfigMerger(os.pathsep.join(files)).config.value  # type: ignore[no-untyped-call]
        known = {str(one["name"]): one["context"].value for one in content.get("contexts") or ()}
        name = name or content.get("current-context")
        if name in known:
            kubernetes.config.load_kube_config(os.pathsep.join(files), context=name, client_configuration=configuration)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever a damaged file makes the client's parser raise
        raise _nowhere("the kubeconfig cannot be used", path, _said(error), "mend it: kubectl config view") from None
    if name not in known:
        how = did_you_mean(name or "", known) or (f"there is {listed(known, 'and')}" if known else "it has no contexts at all")
        raise _nowhere(f'there is no context "{name}"' if name else "no context is current", path, "", f"choose one with --context: {how}")
    said = known[name]
    configuration.acting = acting(content, name)
    another = "".join(f" acting as {value}" for header, value in configuration.acting if header == "Impersonate-User")
    where = f"context {name}, {configuration.host}, as {said.get('user', '?')}{another}"
    return Login(configuration, target.namespace or said.get("namespace") or "default", where)


def _of_the_pod(target: Target) -> Login:
    try:
        configuration = in_cluster()
        configuration.retries = False
        own = ACCOUNT.read_text().strip()
    except (kubernetes.config.ConfigException, OSError) as error:
        how = "mount a service account, or name a --kubeconfig"
        raise _nowhere("this pod has no credentials", str(ACCOUNT.parent), _said(error), how) from None
    return Login(configuration, target.namespace or own, f"{configuration.host}, as the pod's service account")


def _said(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _nowhere(what: str, where: str, why: str, how: str) -> JobError:
    return JobError("GTJ0302", what, where=where, why=why, how=how)
