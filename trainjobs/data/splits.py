"""Which objects are trained on and which are held out, where the data comes divided: the conventions of the `datasets` library.

A split is told by a folder (train/, data/validation/, imagenet_test/) or by the name of a file (train.jsonl, c4-validation.00000.json.gz,
data/train-00000-of-00001.parquet), as a word of its own. Data counts as divided when *every* object of its kind belongs to a split and one
of them is train: a folder of pictures in which one is called test.jpg is not. Pure: names in, names out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from trainjobs.api.data import Split
from trainjobs.api.errors import JobError
from trainjobs.api.problem import did_you_mean, listed

# datasets.data_files.SPLIT_KEYWORDS
WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_CANONICAL = {word: split for split, words in WORDS.items() for word in words}
_SHARD = re.compile(r"(?:.*/)?data/(?P<split>\w[\w.]*)-[0-9]{5}-of-[0-9]{5}[^/]*")
_SPARED = r"(?:^|[-._ 0-9]){}(?:$|[-._ 0-9])"  # the words' edges
_WORD = re.compile(_SPARED.format(f"({'|'.join(sorted(_CANONICAL, key=len, reverse=True))})"), re.IGNORECASE)
_PACKED = (".gz", ".zst")
SHARED = re.compile(r"(.*/)?metadata\.(jsonl|csv|parquet)")  # of images in folders below: of every split


@dataclass(frozen=True)
class Splits:
    """Names of objects. `validation` is empty where a share of `train` is held out, or another source. `others` counts the objects of
    the splits that nobody reads, "" those of none."""

    train: tuple[str, ...]
    validation: tuple[str, ...] = ()
    train_name: str = ""
    validation_name: str = ""
    others: Mapping[str, int] = field(default_factory=dict)

    def words(self) -> Iterator[str]:
        """For the line that says what was found: "split train, held out validation", "split test (3 files) left out"."""
        if self.train_name:
            yield f"split {self.train_name}" + (f", held out {self.validation_name}" if self.validation_name else "")
        if self.others:
            counts = {name: f"{count:,} file{'s' if count > 1 else ''}" for name, count in self.others.items()}
            shown = [f"split {name} ({count})" if name else f"{count} of no split" for name, count in counts.items()]
            yield f"{listed(shown, 'and')} left out"


def divide(names: Sequence[str], data_files: Mapping[str, Sequence[str]] | None, split: Split, where: str = "data.source") -> Splits:
    """The objects to train on and those that are held out. `data_files` are the splits where the place itself names them (Listed.splits),
    else the objects' names tell.

    JobError GTJ0102 for a split that is not there, GTJ0113 when several are there, none is called train and the manifest names none.
    """
    named = [name for name in (split.train, split.validation) if name and "://" not in name]
    found = {name: tuple(files) for name, files in data_files.items()} if data_files else told(names, named)
    if named and not found:
        what, how = f'there is no split "{named[0]}"', "leave data.split out: what is held out is then a share of all, data.holdout"
        raise JobError("GTJ0102", what, where=where, why="neither folders nor names of files divide the data", how=how)
    if not found or (len(found) == 1 and not named):
        return Splits(tuple(names))
    train = _pick(split.train, "data.split.train", found, where) if split.train else _pick_train(found, where)
    elsewhere = split.validation is not None and "://" in split.validation
    if split.validation and not elsewhere:
        held = _pick(split.validation, "data.split.validation", found, where)
        if held == train:
            what, how = f'"{held}" is both trained on and held out', f"name two of {listed(found, 'and')}, or one"
            raise JobError("GTJ0102", what, where="data.split.validation", why="both names mean the same files", how=how)
    else:
        held = "" if elsewhere else next((name for name in found if name != train and _canonical(name) == "validation"), "")
    others = {name: len(files) for name, files in found.items() if name not in (train, held)}
    if stray := len(set(names).difference(*found.values())):
        others[""] = stray
    return Splits(found[train], found.get(held, ()), train, held, others)


def told(names: Sequence[str], extra: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
    """The splits that objects' names tell, train first; none where they tell of none. `extra` are words that the manifest has for them,
    which need not cover all objects."""
    shared = [name for name in names if SHARED.fullmatch(name)]
    rest = [name for name in names if not SHARED.fullmatch(name)]
    for tell in (_by_shard, _by_folder, _by_file):
        found = _grouped(rest, tell, extra)
        if found:
            order = sorted(found, key=lambda name: (list(WORDS).index(name) if name in WORDS else len(WORDS), name))
            return {name: tuple(sorted([*found[name], *(one for one in shared if _concerns(one, found[name]))])) for name in order}
    return {}


def _grouped(names: Sequence[str], tell: Callable[[str, Sequence[str]], str], extra: Sequence[str]) -> dict[str, list[str]]:
    """The objects by split, where that divides them; else none."""
    found: dict[str, list[str]] = {}
    without: list[str] = []
    for name in names:
        split = tell(name, extra)
        found.setdefault(split, []).append(name) if split else without.append(name)
    kinds = {_kind(name) for files in found.values() for name in files}
    if extra and found and all(any(word in (name, _canonical(name)) or _canonical(word) == name for name in found) for word in extra):
        return found
    if any(_kind(name) in kinds for name in without) or "train" not in found:
        return {}
    for name in without:  # of another kind, so not divided: whoever reads the data says what becomes of it
        found["train"].append(name)
    return found


def _by_shard(name: str, extra: Sequence[str]) -> str:
    found = _SHARD.fullmatch(name)
    return found["split"] if found else ""


def _by_folder(name: str, extra: Sequence[str]) -> str:
    return next((split for folder in name.split("/")[:-1] if (split := _word(folder, extra))), "")


def _by_file(name: str, extra: Sequence[str]) -> str:
    return _word(name.rpartition("/")[2], extra)


def _word(text: str, extra: Sequence[str]) -> str:
    """The split that a folder or a file is called by; of words that the manifest has, that very word."""
    for word in extra:
        if re.search(_SPARED.format(re.escape(word)), text):
            return word
    found = _WORD.search(text)
    return _CANONICAL[found[1].lower()] if found else ""


def _pick(name: str, field_name: str, found: Mapping[str, Sequence[str]], where: str) -> str:
    if name in found:
        return name
    meant = [one for one in found if _canonical(one) == _canonical(name)]
    if meant:
        return meant[0]
    near = did_you_mean(name, found)
    why = f"{where} has {listed(found, 'and')}"
    raise JobError("GTJ0102", f'there is no split "{name}"', where=field_name, why=why, how=near or "name one of those, or leave it out")


def _pick_train(found: Mapping[str, Sequence[str]], where: str) -> str:
    for name in found:
        if _canonical(name) == "train":
            return name
    how = f"name one, as in data.split.train: {next(iter(found))}"
    raise JobError("GTJ0113", "none of the data's splits is called train", where=where, why=f"it has {listed(found, 'and')}", how=how)


def _canonical(name: str) -> str:
    return _CANONICAL.get(name.lower(), name)


def _concerns(shared: str, files: Sequence[str]) -> bool:
    folder = shared.rpartition("/")[0]
    return any(not folder or file.startswith(f"{folder}/") for file in files)


def _kind(name: str) -> str:
    """The suffix, without what it is packed by."""
    last = name.rpartition("/")[2].lower()
    for packed in _PACKED:
        last = last.removesuffix(packed)
    return last.rpartition(".")[2] if "." in last else ""
