"""Relative paths of data and models, file://./faces or file://faces, as the absolute ones that they are here: against the folder of the
manifest.

Only where the job runs on this machine. A cluster has no folder of the manifest, so there they are refused (uris.source).
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path as Folder
from typing import Any

from trainjobs.api.shape import Path
from trainjobs.api.uris import file_path, file_uri, relative
from trainjobs.cli.positions import Document, documents

_PLAIN = re.compile(r"file:///[\w./~%+-]*")  # what YAML reads as it stands


def absolute(data: Any, folder: Folder) -> tuple[Any, dict[Path, str]]:
    """A copy of a manifest without relative paths in data.source, data.sources, data.split.validation, language.base.source,
    language.template, language.distill.teacher.source, language.distill.prepared, the rewards of grpo and ppo,
    diffusion.pretrained.source and diffusion.latents.autoencoder, and what became of each."""
    found = {path: resolved(uri, folder) for path, uri in _places(data) if relative(uri)}
    changed = copy.deepcopy(data) if found else data
    for path, uri in found.items():
        holder = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = uri
    return changed, found


def resolved(uri: str, folder: Folder) -> str:
    """The URI of what a relative one names. A link in the folder's own path stays as it is; `..` is what it is for the system."""
    path = folder.absolute()
    for part in file_path(uri).split("/"):
        if part == "..":
            path = Folder(os.path.realpath(path)).parent
        elif part not in ("", "."):
            path /= part
    return file_uri(str(path))


def rewritten(text: bytes, document: Document, folder: Folder) -> bytes:
    """The text of a manifest with the absolute URIs in the places of the relative ones, so that a copy of it means the same; what YAML
    writes in a way that this cannot follow (an alias) stays as it is."""
    data, found = absolute(document.data, folder)
    if not found:
        return text
    decoded = text.decode("utf-8-sig")
    lines = decoded.splitlines(keepends=True)
    for path, uri in sorted(found.items(), key=lambda item: document.values[item[0]].column, reverse=True):  # two may stand on one line
        at = document.values[path]
        line, shown = lines[at.line - 1], uri if _PLAIN.fullmatch(uri) else json.dumps(uri, ensure_ascii=False)
        lines[at.line - 1] = line[: at.column - 1] + shown + line[at.column - 1 + at.length :]
    changed = "".join(lines)
    meant = [data if one.data == document.data else one.data for one in documents(decoded)]
    return changed.encode() if [one.data for one in documents(changed)] == meant else text


def _places(data: Any) -> Iterator[tuple[Path, str]]:
    """Where a manifest names data or a model, and what stands there; of any shape, since nothing is checked yet."""
    spec = data.get("spec") if isinstance(data, dict) else None
    language, diffusion = (spec.get(name) if isinstance(spec, dict) else None for name in ("language", "diffusion"))
    distill = language.get("distill") if isinstance(language, dict) else None
    for holder, path in (
        (language, ("language", "base")),
        (distill, ("language", "distill", "teacher")),
        (diffusion, ("diffusion", "pretrained")),
    ):
        base = holder.get(path[-1]) if isinstance(holder, dict) else None
        if isinstance(base, dict) and isinstance(base.get("source"), str):
            yield ("spec", *path, "source"), base["source"]
    if isinstance(language, dict) and isinstance(language.get("template"), str) and "://" in language["template"]:
        yield ("spec", "language", "template"), language["template"]
    if isinstance(distill, dict) and isinstance(distill.get("prepared"), str):
        yield ("spec", "language", "distill", "prepared"), distill["prepared"]
    for method in ("grpo", "ppo"):
        own = language.get(method) if isinstance(language, dict) else None
        rewards = own.get("rewards") if isinstance(own, dict) else None
        for number, one in enumerate(rewards if isinstance(rewards, list) else ()):
            if isinstance(one, dict) and isinstance(one.get("source"), str):
                yield ("spec", "language", method, "rewards", number, "source"), one["source"]
    latents = diffusion.get("latents") if isinstance(diffusion, dict) else None
    if isinstance(latents, dict) and isinstance(latents.get("autoencoder"), str):
        yield ("spec", "diffusion", "latents", "autoencoder"), latents["autoencoder"]
    told = spec.get("data") if isinstance(spec, dict) else None
    if not isinstance(told, dict):
        return
    split, sources = told.get("split"), told.get("sources")
    named: list[tuple[Path, Any]] = [(("spec", "data", "source"), told.get("source"))]
    if isinstance(sources, Sequence) and not isinstance(sources, str):
        parts = [(number, part) for number, part in enumerate(sources) if isinstance(part, dict)]
        named += [(("spec", "data", "sources", number, "source"), part.get("source")) for number, part in parts]
    if isinstance(split, dict):
        named.append((("spec", "data", "split", "validation"), split.get("validation")))
    yield from ((path, uri) for path, uri in named if isinstance(uri, str))
