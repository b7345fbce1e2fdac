"""A bench whose operator asks for preflights, and the hands to play the kubelet of their pods."""

from __future__ import annotations

import json
import threading

from gentrain_operator.kube.client import from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import PODS, RAYJOBS, Object
from gentrain_operator.main import Operator, Settings
from tests.cluster.at_work import IMAGE, Bench


class Looking(Bench):
    """In this namespace, and in another one where a test names it."""

    other = ""

    def start(self) -> None:
        self._stopped = threading.Event()
        watched = ",".join(filter(None, (self.namespace, self.other)))
        self.operator = Operator(from_kubeconfig(self._kubeconfig), Settings(IMAGE, self.namespace, watched, port=0, preflight=True))
        self._thread = threading.Thread(target=self.operator.run, args=(self._stopped,))
        self._thread.start()

    def pod(self, name: str = "job", namespace: str = "") -> Object:
        found: Object = self.until(lambda: self.client.get(PODS, namespace or self.namespace, f"{name}-preflight"))
        return found

    def says(self, status: Object, name: str = "job", namespace: str = "") -> None:
        pod = self.pod(name, namespace)
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
        self.cluster.kubectl("replace", "--raw", path, "-f", "-", stdin=json.dumps({**pod, "status": status}))

    def gone(self, name: str = "job") -> bool:
        try:
            return bool(self.client.get(PODS, self.namespace, f"{name}-preflight")["metadata"].get("deletionTimestamp"))
        except ApiError as error:
            return error.not_found

    def rayjobs(self, namespace: str = "") -> list[str]:
        return [one["metadata"]["name"] for one in self.client.list(RAYJOBS, namespace or self.namespace)["items"]]
