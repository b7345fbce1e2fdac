"""What a URI in a manifest may be. No credentials, nothing that a store could read differently from us, never a bucket's root."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from urllib.parse import quote, unquote_to_bytes

from trainjobs.api.problem import did_you_mean, listed
from trainjobs.api.rule import Breach

BUILTINS = {
    "digits": "image",
    "shapes": "image",
    "ring": "point",
    "stdlib-text": "text",
    "stdlib-pairs": "text",
    "stdlib-chat": "text",
    "stdlib-preferences": "text",
}

# The same in CEL. One authority without user info (file: none), no query, no fragment, no white space, no unprintable character, no "..";
# in what file: escapes no "..", no NUL and no slash.
CLEAN = r"!self.matches(r'[?#\s\p{C}\p{Z}]|/[.][.](/|$)|^file:.*(%00|%2[fF]|/([.]|%2[eE])([.]|%2[eE])(/|$))')"
_SLASHES = re.compile("%00|%2f", re.IGNORECASE)
SOURCE = (
    f"self.startsWith('builtin:') ? self in {[f'builtin:{name}' for name in BUILTINS]} "
    rf": self.matches(r'^(file:///|(s3|gs|az|hf)://[^/@]+(/|$))') && {CLEAN}"
)
SPLIT = r"[A-Za-z0-9_.-]{1,64}"
HELD = f"self.matches('^{SPLIT}$') || (self.contains('://') && {SOURCE.partition(' : ')[2]})"
PREFIX = rf"self.matches(r'^(file://|(s3|gs|az)://[^/@]+)/+[^/]') && {CLEAN}"
UNUSABLE = "not a usable URI: a folder in a bucket or an absolute path, no user, query, fragment, space or .."


def file_path(uri: str) -> str:
    """The path of a file:// URI, its %-escapes read as bytes (RFC 8089, RFC 3986). A % before anything but two hexadecimal digits is
    itself."""
    return unquote_to_bytes(_bytes(uri.removeprefix("file://"))).decode("utf-8", "surrogateescape")


def file_uri(path: str) -> str:
    """The file:// URI of a path: `file_path` of it is the path. Only what a URI cannot hold is escaped, so most paths stand as they are."""
    return "file://" + "".join(one if one.isprintable() and one not in " %#?" else quote(_bytes(one), "") for one in path)


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # how Python keeps the bytes of a name that is not UTF-8
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")  # no name of a file at all


def relative(uri: str) -> bool:
    """Whether a file:// URI is a path from somewhere on: file://./faces, file://faces, file://../faces. One that is unusable for other
    reasons (white space, a query, a host that is surely one, what a shell should have replaced) is none."""
    rest = uri.removeprefix("file://")
    first = rest.partition("/")[0]
    clean = rest.isprintable() and not any(character.isspace() or character in "?#$" for character in rest) and not _SLASHES.search(rest)
    return uri.startswith("file://") and first not in ("", "~", "localhost") and "@" not in first and clean


def builtin(source: str) -> str | None:
    """ "digits" of "builtin:digits"; None for any other URI."""
    return source.removeprefix("builtin:") if source.startswith("builtin:") else None


def source(uri: str) -> Iterator[Breach]:
    """What is wrong with spec.data.source."""
    name = builtin(uri)
    if name is None and relative(uri):
        why = "it is resolved where the manifest lies, by gtj run and gtj validate; a cluster has no such folder"
        how = "copy the data to a bucket and name that, or mount it (spec.pod.volumes) and name its path there"
        yield Breach((), f"{uri} is a relative path", why, f"{how}: {file_uri(posixpath.normpath(f'/{file_path(uri)}'))}")
    elif name is None:
        yield from location(uri)
    elif name not in BUILTINS:
        known = [f"builtin:{known}" for known in BUILTINS]
        near = did_you_mean(uri, known)
        yield Breach((), f'there is no "{uri}"', f"built in are {listed(known, 'and')}", near, code="GTJ0102")


def split(text: str) -> Iterator[Breach]:
    """What is wrong with spec.data.split.validation: the name of a split, or a source's URI."""
    if builtin(text) is not None:
        yield Breach((), f"{text} cannot be held out", "what is built in is a whole by itself", "leave it out: data.holdout is a share")
    elif re.fullmatch("(file|s3|gs|az|hf)://.+", text, re.DOTALL):
        yield from source(text)
    elif not re.fullmatch(SPLIT, text):
        yield Breach((), f'"{text}" is no name of a split', how="write its name, such as validation, or another source's URI")


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
    local = scheme == "file"

    def escaped() -> str:
        """The path as it was typed, if it was one."""
        return f"as a URI the path is {file_uri(rest)}"

    if any(character.isspace() or not character.isprintable() for character in uri):
        yield refused(uri, "contains white space", escaped() if local else "rename the folder, or link to it under another name")
    elif "@" in authority:
        hidden = f"{scheme}://...@{authority.rpartition('@')[2]}{slash}{key}"
        yield refused(hidden, "carries a user or password", "credentials come from the environment or from spec.pod.env, never from a URI")
    elif "?" in rest:
        how = f"if it belongs to the name, {escaped()}" if local else "signed URLs expire and leak: give the worker access to the bucket"
        yield refused(uri if local else uri.partition("?")[0] + "?...", "carries a query", how)
    elif "#" in rest:
        how = f"if it belongs to the name, {escaped()}" if local else "take away everything from # on"
        yield refused(uri, "carries a fragment", how)
    elif ".." in key.split("/") or authority == ".." or (local and ".." in file_path(uri).split("/")):
        yield refused(uri, "climbs with ..", "write the path that is meant")
    elif local and _SLASHES.search(key):
        yield refused(uri, "escapes a slash or a NUL", "no name of a file holds one: write / between folders")
    elif local and authority:
        example = f"file:///{rest}"
        if authority in (".", "~") or "$" in authority:
            example = f"in a shell, file://{'$HOME' if authority == '~' else '$PWD'}{slash}{key}"
        how = f"file: URIs have three slashes and an absolute path: {example}"
        yield refused(uri, f'names "{authority}" as a host', how)
    elif not local and not authority:
        yield refused(uri, "names no bucket", f"write {scheme}://bucket/folder")


def meant(text: str) -> str:
    """The URI that was meant by a path without a scheme, for people; "" for anything else."""
    if text.startswith("file:/"):
        return file_uri(file_path("file://" + text.removeprefix("file:")))
    if text.startswith("~"):
        return f"in a shell, file://$HOME{file_uri(text.partition('/')[2]).replace('file://', '/')}"
    if text.startswith("/"):
        return file_uri(text)
    return f"in a shell, file://$PWD{file_uri(text.removeprefix('.')).removeprefix('file://')}" if text.startswith("./") else ""


def refused(uri: str, why: str, how: str) -> Breach:
    return Breach((), f"{uri} {why}", how=how)
