"""What a URI in a manifest may be. No credentials, nothing that a store could read differently from us, never a bucket's root."""

from __future__ import annotations

from collections.abc import Iterator

from trainjobs.api.problem import did_you_mean, listed
from trainjobs.api.rule import Breach

BUILTINS = {"digits": "image", "shapes": "image", "ring": "point", "stdlib-text": "text"}

# The same in CEL. One authority without user info (file: none), no query, no fragment, no white space, no unprintable character, no "..".
_CLEAN = r"!self.matches(r'[?#\s\p{C}\p{Z}]|/[.][.](/|$)')"
SOURCE = (
    f"self.startsWith('builtin:') ? self in {[f'builtin:{name}' for name in BUILTINS]} "
    rf": self.matches(r'^(file:///|(s3|gs|az|hf)://[^/@]+(/|$))') && {_CLEAN}"
)
PREFIX = rf"self.matches(r'^(file://|(s3|gs|az)://[^/@]+)/+[^/]') && {_CLEAN}"
UNUSABLE = "not a usable URI: a folder in a bucket or an absolute path, no user, query, fragment, space or .."


def builtin(source: str) -> str | None:
    """ "digits" of "builtin:digits"; None for any other URI."""
    return source.removeprefix("builtin:") if source.startswith("builtin:") else None


def source(uri: str) -> Iterator[Breach]:
    """What is wrong with spec.data.source."""
    name = builtin(uri)
    if name is None:
        yield from location(uri)
    elif name not in BUILTINS:
        known = [f"builtin:{known}" for known in BUILTINS]
        near = did_you_mean(uri, known)
        yield Breach((), f'there is no "{uri}"', f"built in are {listed(known, 'and')}", near, code="GTJ0102")


def prefix(uri: str, why: str = "old checkpoints are deleted there") -> Iterator[Breach]:
    """What is wrong with a place for checkpoints: retention deletes below it, so it is never a bucket or a file system as a whole.

    `why` is the reason for other places that must be a folder or a file.
    """
    found = list(location(uri))
    yield from found
    scheme, _, rest = uri.partition("://")
    segments = [segment for segment in rest.split("/") if segment]
    if not found and len(segments) < (1 if scheme == "file" else 2):
        whole = "the root of the file system" if scheme == "file" else "a bucket's root"
        example = f"{scheme}://{'/runs' if scheme == 'file' else segments[0]}/my-job"
        yield Breach((), f"{uri} is {whole}", why, f"name a folder in it, such as {example}")


def location(uri: str) -> Iterator[Breach]:
    """What is wrong with any URI that has an authority: scheme://authority/path."""
    scheme, _, rest = uri.partition("://")
    authority, slash, key = rest.partition("/")
    if any(character.isspace() or not character.isprintable() for character in uri):
        yield refused(uri, "contains white space", "rename the folder, or link to it under another name")
    elif "@" in authority:
        hidden = f"{scheme}://...@{authority.rpartition('@')[2]}{slash}{key}"
        yield refused(hidden, "carries a user or password", "credentials come from the environment or from spec.pod.env, never from a URI")
    elif "?" in rest:
        yield refused(
            uri.partition("?")[0] + "?...", "carries a query", "signed URLs expire and leak: give the worker access to the bucket"
        )
    elif "#" in rest:
        yield refused(uri, "carries a fragment", "take away everything from # on")
    elif ".." in key.split("/") or authority == "..":
        yield refused(uri, "climbs with ..", "write the path that is meant")
    elif scheme == "file" and authority:
        example = f"file:///{rest}" if authority != "." else f"in a shell, file://$PWD{slash}{key}"
        how = f"file: URIs have three slashes and an absolute path: {example}"
        yield refused(uri, f'names "{authority}" as a host', how)
    elif scheme != "file" and not authority:
        yield refused(uri, "names no bucket", f"write {scheme}://bucket/folder")


def refused(uri: str, why: str, how: str) -> Breach:
    return Breach((), f"{uri} {why}", how=how)
