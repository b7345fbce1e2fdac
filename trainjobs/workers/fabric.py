"""What a node says of its fabric: variables that NCCL reads, from a script of the node (GKE keeps gib's there, and changes them with the
driver). A worker's command is argv, so there is no shell to source it; lines that only a shell could read are left out, and told."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from pathlib import Path

NAMED = "GENTRAIN_NCCL_ENV"  # the path, set by the operator where the node pool has such a script
_LINE = re.compile(r"^\s*export\s+(?P<name>NCCL_[A-Z0-9_]+)=(?P<quote>[\"']?)(?P<value>.*?)(?P=quote)\s*(#.*)?$")


def variables(text: str) -> tuple[dict[str, str], list[str]]:
    """Those that the script exports with a plain value, and the names of those whose value a shell would have to work out."""
    found: dict[str, str] = {}
    left = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if match is None:
            continue
        if match["quote"] != "'" and re.search(r"[$`\\]", match["value"]):
            left.append(match["name"])
        else:
            found[match["name"]] = match["value"]
    return found, left


def adopt(environment: MutableMapping[str, str], say: Callable[[str], None]) -> None:
    """Before a process group is connected. What the job sets itself stays."""
    path = environment.get(NAMED)
    if path is None:
        return
    try:
        found, left = variables(Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        say(f"{path} cannot be read ({error}): NCCL goes on with its own settings, and may not use the node's fabric")
        return
    for name, value in found.items():
        environment.setdefault(name, value)
    for name in (one for one in left if one not in environment):
        say(f"{path} sets {name} by more than a plain value: it is left out; set it in spec.pod.env")
