"""As whom a kubeconfig wants its requests to be made. The official client ignores it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


def acting(kubeconfig: Mapping[str, Any], context: str | None) -> tuple[tuple[str, str], ...]:
    """The headers of impersonation that a context's user asks for with as, as-uid, as-groups and as-user-extra; none where it does not.

    Without them a request would be made with the rights of whoever logged in, which are usually more.
    """
    contexts, users = ({one["name"]: _plain(one[kind]) or {} for one in kubeconfig.get(f"{kind}s") or ()} for kind in ("context", "user"))
    user = users.get(contexts.get(context, {}).get("user"), {})
    named = [("Impersonate-User", user.get("as")), ("Impersonate-Uid", user.get("as-uid"))]
    groups = [("Impersonate-Group", group) for group in user.get("as-groups") or ()]
    extra = [
        (f"Impersonate-Extra-{quote(key, safe='')}", value) for key, values in (user.get("as-user-extra") or {}).items() for value in values
    ]
    return tuple((name, str(value)) for name, value in (*named, *groups, *extra) if value)


def _plain(node: Any) -> Any:
    """What the client's reader of kubeconfigs wraps some mappings in, taken off."""
    return getattr(node, "value", node)
