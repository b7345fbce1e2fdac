"""What a node pool and its fabric add to a pod, and how that is written into one."""

from __future__ import annotations

from dataclasses import dataclass, field

from gentrain_operator.kube.resource import Object


@dataclass(frozen=True)
class Sidecar:
    """A daemon of the fabric that runs as root beside a worker, begins before it and ends after it."""

    name: str
    image: str
    command: tuple[str, ...]
    capabilities: tuple[str, ...]
    environment: dict[str, str]
    host_paths: dict[str, str]  # on the node, by where the daemon sees them
    written_paths: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Fragment:
    """What a pod and its Ray container get beside what every pod of ours has."""

    selector: dict[str, str] = field(default_factory=dict)
    expressions: list[Object] = field(default_factory=list)  # of node affinity, all of which must hold
    required: bool = True  # whether without them it may run elsewhere
    tolerations: list[Object] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    resources: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    host_paths: dict[str, str] = field(default_factory=dict)  # on the node, by where the container sees them, read only
    written_paths: dict[str, str] = field(default_factory=dict)  # the same, where the container may write: sockets, devices
    claim_template: str | None = None
    capabilities: tuple[str, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()


def volumes(place: Fragment) -> list[Object]:
    """Each folder of the node once, whichever containers see it."""
    return [{"name": name, "hostPath": {"path": path}} for path, name in _names(place).items()]


def mounts(place: Fragment | Sidecar, whole: Fragment) -> list[Object]:
    """Of one container of a pod whose volumes are those of `whole`."""
    names = _names(whole)
    read = [{"name": names[path], "mountPath": where, "readOnly": True} for where, path in place.host_paths.items()]
    return [*read, *({"name": names[path], "mountPath": where} for where, path in place.written_paths.items())]


def daemons(place: Fragment) -> list[Object]:
    """Init containers that Kubernetes keeps running (restartPolicy: Always): as containers they would keep the pod from completing.

    They ask for nothing of the node: a worker has its whole share already, and with more it would fit nowhere."""
    return [
        {
            "name": one.name,
            "image": one.image,
            "restartPolicy": "Always",
            "command": list(one.command),
            "env": [{"name": name, "value": value} for name, value in one.environment.items()],
            "securityContext": {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False, "capabilities": {"add": list(one.capabilities)}},
            "volumeMounts": mounts(one, place),
        }
        for one in place.sidecars
    ]


def _names(place: Fragment) -> dict[str, str]:
    seen: list[Fragment | Sidecar] = [place, *place.sidecars]
    paths = dict.fromkeys(path for one in seen for path in (*one.host_paths.values(), *one.written_paths.values()))
    return {path: f"node-{number}" for number, path in enumerate(paths)}
