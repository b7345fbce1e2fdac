"""Which files of a dataset on the hub are its data, and of which split: the conventions of the `datasets` library.

A dataset card begins with YAML, and that may list configurations:

    configs:
    - config_name: en
      default: true
      data_files:
      - {split: train, path: "en/train-*.parquet"}
      - {split: test, path: [en/test.parquet]}

Without a list every file is data but those that never are, and folders stand for configurations. Pure: names in, names out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from trainjobs.api.errors import JobError
from trainjobs.api.problem import did_you_mean, listed

# What lies beside data on the hub, and is none. (datasets.data_files.FILES_TO_IGNORE, and what git and people put there.)
ABOUT = re.compile(
    r"README.*|LICEN[CS]E.*|NOTICE.*|CITATION.*|CHANGELOG.*|config\.json|dataset_infos?\.json|dataset_dict\.json|dummy_data\.zip"
    r"|requirements\.txt",
    re.IGNORECASE,
)
CODE = re.compile(r".*\.(py|ipynb|sh|ya?ml)", re.IGNORECASE)
READABLE = re.compile(
    r".*\.(parquet|tar|((jsonl|json|csv|tsv|txt|text|md)(\.(gz|zst))?)|jpe?g|jfif|png|gif|bmp|webp|avif|tiff?|p[gp]m)", re.IGNORECASE
)
SHOWN = 20


@dataclass(frozen=True)
class Chosen:
    """`files` in the order of their names. `splits`: the files of each, where the card says so. `others` counts what is left out."""

    files: tuple[str, ...]
    splits: Mapping[str, tuple[str, ...]] | None = None
    others: Mapping[str, int] = field(default_factory=dict)


def choose(card: str, names: Sequence[str], wanted: str, uri: str) -> Chosen:
    """Of a dataset with this card and these files, the data of one configuration; "" is its only or default one.

    JobError GTJ0102 for a configuration that is not there; GTJ0113 when one must be named, when there is no data, or only a script.
    """
    data = [name for name in names if is_data(name)]
    known = configurations(card)
    name = wanted or _default(known, uri)
    if name in known:
        splits = _splits(known[name], data, name, uri)
        files = tuple(sorted({file for found in splits.values() for file in found}))
        others = len(data) - len(files)
        return Chosen(files, splits if len(splits) > 1 or "data_files" in known[name] else None, _left(names, others))
    files = tuple(file for file in data if file.startswith(f"{wanted}/")) if wanted else tuple(data)
    if wanted and not files:
        there = list(known) or sorted({file.partition("/")[0] for file in data if "/" in file})
        how = f"there {'are' if len(there) > 1 else 'is'} {_shown(there)}" if there else "take it out of the URI: there is only one"
        near = did_you_mean(wanted, there)
        raise JobError("GTJ0102", f'the dataset has no configuration "{wanted}"', where=uri, why=how if near else "", how=near or how)
    if not any(READABLE.fullmatch(file) for file in files):
        raise _no_data(names, uri)
    return Chosen(files, None, _left(names, len(data) - len(files)))


def is_data(name: str) -> bool:
    """Whether a file may be data: nothing hidden, and nothing that describes the dataset or loads it."""
    last = name.rpartition("/")[2]
    return not _hidden(name) and not ABOUT.fullmatch(last) and not CODE.fullmatch(last)


def configurations(card: str) -> dict[str, Mapping[str, Any]]:
    """Those that the card lists, by name. All scalars are text: `config_name: no` is Norwegian. A card that is no YAML lists none."""
    head = re.match(r"---[ \t]*\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", card.removeprefix("\ufeff"), re.DOTALL)
    try:
        described = yaml.load(head[1], yaml.BaseLoader) if head else None
    except yaml.YAMLError:
        return {}
    found = described.get("configs") if isinstance(described, dict) else None
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return {str(item.get("config_name") or "default"): item for item in items if "data_files" in item or "data_dir" in item}


def matching(pattern: str) -> re.Pattern[str]:
    """A glob of the card as a regular expression: * and ? within a folder, ** across folders, [ab]."""
    made, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            made, at = made + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            made, at = made + ".*", at + 2
        elif pattern[at] == "[" and (end := pattern.find("]", at + 2)) > 0:
            inside = pattern[at + 1 : end].replace("\\", r"\\").replace("[", r"\[")
            made, at = made + f"[{'^' + inside[1:] if inside[0] in '!^' else inside}]", end + 1
        else:
            made, at = made + {"*": "[^/]*", "?": "[^/]"}.get(pattern[at], re.escape(pattern[at])), at + 1
    return re.compile(made, re.DOTALL)


def _default(known: Mapping[str, Mapping[str, Any]], uri: str) -> str:
    """The name of the configuration that is meant by none. GTJ0113."""
    if len(known) <= 1:
        return next(iter(known), "")
    meant = [name for name, item in known.items() if str(item.get("default")).lower() == "true"]
    if meant or "default" in known:
        return meant[0] if meant else "default"
    place, at, revision = uri.partition("@")
    example = f"{place}/{next(iter(known))}{at}{revision}"
    why = f"they are {_shown(list(known))}"
    raise JobError("GTJ0113", f"the dataset has {len(known)} configurations", where=uri, why=why, how=f"name one, as in {example}")


def _splits(item: Mapping[str, Any], data: Sequence[str], name: str, uri: str) -> dict[str, tuple[str, ...]]:
    """The files of each split of a configuration. Every pattern must name something. GTJ0113."""
    folder = str(item.get("data_dir") or "").strip("/")
    prefix = f"{folder}/" if folder not in ("", ".") else ""
    found: dict[str, list[str]] = {}
    for split, pattern in _patterns(item.get("data_files") or "**"):
        whole = prefix + pattern.removeprefix("./").lstrip("/")
        wanted = matching(whole)
        files = [file for file in data if wanted.fullmatch(file) or file.startswith(f"{whole.rstrip('/')}/")]
        if not files:
            how = "see the card of the dataset, or name its files' folder instead of the configuration"
            why = f"the files of its split {split} are {pattern}, and there is none"
            raise JobError("GTJ0113", f'the configuration "{name}" of the dataset has no files', where=uri, why=why, how=how)
        found.setdefault(split, []).extend(files)
    return {split: tuple(sorted(set(files))) for split, files in found.items()}


def _patterns(given: Any) -> list[tuple[str, str]]:
    """(split, pattern) of what a card may write: a pattern, several, {split, path} items, or a mapping from splits to patterns."""
    if isinstance(given, str):
        return [("train", given)]
    if isinstance(given, dict):
        return [(str(split), str(one)) for split, paths in given.items() for one in (paths if isinstance(paths, list) else [paths])]
    found: list[tuple[str, str]] = []
    for item in given:
        if isinstance(item, dict):
            paths = item.get("path", "**")
            found += [(str(item.get("split", "train")), str(one)) for one in (paths if isinstance(paths, list) else [paths])]
        else:
            found.append(("train", str(item)))
    return found


def _no_data(names: Sequence[str], uri: str) -> JobError:
    scripts = [name for name in names if name.endswith(".py") and "/" not in name]
    if scripts:
        place = uri.partition("@")[0]
        how = f"the hub often holds it as Parquet: {place}@refs/convert/parquet; or load it with `datasets` and save it as Parquet"
        what = f"the dataset is a script, {scripts[0]}, that fetches or makes its data"
        return JobError("GTJ0113", what, where=uri, why="scripts of others are not run", how=how)
    seen = sorted({f".{name.rpartition('.')[2]}" if "." in name.rpartition("/")[2] else "no suffix" for name in names if is_data(name)})
    only = f"it holds nothing but {len(names)} file{'s that describe' if len(names) > 1 else ' that describes'} it"
    why = f"its files are {_shown(seen)}" if seen else only if names else "it is empty"
    return JobError("GTJ0113", "the dataset holds no data that is read", where=uri, why=why, how="name another, or another revision")


def _hidden(name: str) -> bool:
    return any(part.startswith((".", "__")) for part in name.split("/"))


def _left(names: Sequence[str], others: int) -> dict[str, int]:
    """What is left out and may have been meant: not what only tells of the dataset, nor git's own files."""
    counts = Counter(f".{name.rpartition('.')[2].lower()}" for name in names if not _hidden(name) and CODE.fullmatch(name))
    return {**({"of other configurations": others} if others else {}), **counts}


def _shown(names: Sequence[str]) -> str:
    more = [f"{len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return listed([*names[:SHOWN], *more], "and")
