"""Which kinds of objects there are and where the server serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from trainjobs.api.job import GROUP, KIND, VERSION

# An object as the API server sends it. What comes out of a store is shared: read it, never change it.
Object = dict[str, Any]


@dataclass(frozen=True)
class Resource:
    """A kind of object, and where the server serves it. The core group is "" here and has a path of its own.

    `managed`: whether managedFields are read in lists of it. They are more than half of a RayJob, and nobody here looks at them.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    managed: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """The path of a collection, an object or a subresource; namespace None means all namespaces, or a cluster-scoped kind."""
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        if self.namespaced and namespace is not None:
            parts += ["namespaces", namespace]
        parts += [self.plural, name, subresource]
        return "/" + "/".join(quote(part, safe="") for part in parts if part)


JOBS = Resource(GROUP, VERSION, KIND.lower() + "s", KIND)
PROFILES = Resource(GROUP, VERSION, "computeprofiles", "ComputeProfile", namespaced=False)
RAYJOBS = Resource("ray.io", "v1", "rayjobs", "RayJob", managed=False)
RAYCLUSTERS = Resource("ray.io", "v1", "rayclusters", "RayCluster")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
EVENTS = Resource("events.k8s.io", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
