"""What an API server was asked for, by its own audit log."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.control_plane import ControlPlane
from trainjobs.api.job import GROUP

# What service accounts ask for, and nothing of anybody else.
ACCOUNTS: list[dict[str, Any]] = [{"level": "Metadata", "userGroups": ["system:serviceaccounts"]}, {"level": "None"}]
# Whatever is written to jobs, and to what becomes pods, by anybody, with its content.
PODS: list[dict[str, Any]] = [
    {
        "level": "Request",
        "verbs": ["create", "update", "patch"],
        "resources": [
            {"group": GROUP, "resources": ["generativetrainingjobs", "generativetrainingjobs/status"]},
            {"group": "ray.io"},
            {"group": "", "resources": ["pods", "pods/status"]},
        ],
    },
    {"level": "None"},
]


def audited(cluster: ControlPlane, rules: list[dict[str, Any]]) -> tuple[str, ...]:
    """Flags for a server that writes down what the rules of an audit policy say, each before it is answered."""
    policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
    path = cluster.folder / "policy.json"
    path.write_text(json.dumps(policy))
    return f"--audit-policy-file={path}", f"--audit-log-path={cluster.folder / 'audit.log'}"


def requests(cluster: ControlPlane) -> list[dict[str, Any]]:
    """All that was written down so far, in its order."""
    return [json.loads(line) for line in (cluster.folder / "audit.log").read_text().splitlines()]
