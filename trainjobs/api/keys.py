"""Keys of labels, annotations and taints, as Kubernetes wants them: <name>, or <domain>/<name>."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from trainjobs.api.rule import Breach, Rule

DOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
KEY = rf"^({DOMAIN}/)?{NAME}$"
LONGEST = 317  # a domain, the slash and a name
_DOMAIN = 253
_WHAT = "letters, digits, -, _ and ., up to 63 of them, perhaps with a domain and / before"


def is_key(key: str) -> bool:
    return len(key) <= LONGEST and key.find("/") <= _DOMAIN and re.fullmatch(KEY, key) is not None


def cel(key: str) -> str:
    """The same of a variable of CEL."""
    return f"{key}.size() <= {LONGEST} && {key}.indexOf('/') <= {_DOMAIN} && {key}.matches(r'{KEY}')"


def _keys_are_keys(marks: Iterable[str]) -> Iterator[Breach]:
    for key in marks:
        if not is_key(key):
            yield Breach(
                (key,), f'"{key[:64]}" is no key of a label', f"keys are made of {_WHAT}", "such as team or example.com/team", True
            )


def _taint_is_key(key: str) -> Iterator[Breach]:
    if not is_key(key):
        yield Breach((), f'"{key[:64]}" is no key of a taint', f"keys are made of {_WHAT}", "such as gpu or nvidia.com/gpu")


def map_rule(path: str) -> Rule:
    """The keys of the map at the path are such keys."""
    return Rule(path, "GTJ0102", _keys_are_keys, f"self.all(key, {cel('key')})", f"a key is {_WHAT}")


def taint_rule(path: str) -> Rule:
    """The text at the path is such a key."""
    return Rule(path, "GTJ0102", _taint_is_key, cel("self"), f"a key is {_WHAT}")
