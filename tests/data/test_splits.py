"""Which objects are trained on: folders, names of files and cards that divide the data."""

from __future__ import annotations

import pytest

from trainjobs.api.data import Split
from trainjobs.api.errors import JobError
from trainjobs.data.splits import Splits, divide, told

HUB = {"train": ["a", "b"], "validation": ["c"], "test": ["d", "e", "f"]}


def split(train: str | None = None, validation: str | None = None) -> Split:
    return Split(train=train, validation=validation)


@pytest.mark.parametrize(
    "names",
    [
        ["train/a.png", "val/b.png", "test/c.png"],
        ["training/a.png", "validation/b.png", "testing/c.png"],
        ["Train/cat/test_1.png", "Val/cat/train_2.png", "Test/dog/3.png"],
        ["x/imagenet-train/a.png", "x/imagenet_val/b.png", "x/imagenet test/c.png"],
        ["en/train.jsonl", "en/valid.jsonl", "en/eval.jsonl"],
        ["c4-train.00000-of-01024.json.gz", "c4-validation.00000-of-8.json.gz", "c4-test.00000-of-8.json"],
        ["data/train-00000-of-00001-ab12.parquet", "data/validation-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"],
        ["imagenet1k-train-0000.tar", "imagenet1k-dev-00.tar", "imagenet1k-test-00.tar"],
    ],
)
def test_folders_and_names_tell(names: list[str]) -> None:
    first, second, third = names
    assert told(names) == {"train": (first,), "validation": (second,), "test": (third,)}
    assert divide(names, None, split()) == Splits((first,), (second,), "train", "validation", {"test": 1})


@pytest.mark.parametrize(
    "names",
    [
        ["1.png", "2.png"],
        ["test.png", "cat.png"],  # a picture of a test
        ["train/1.png", "car/2.png", "bus/3.png"],  # of a train
        ["train.txt", "tests.txt", "contest.txt"],
        ["latest/a.jsonl", "trained/b.jsonl"],
        ["val/a.png", "test/b.png"],  # nothing would be left to train on
        ["train-1.png", "train-2.png"],
        ["en-00000-of-00001.parquet", "de-00000-of-00001.parquet"],
    ],
)
def test_what_is_not_divided_is_read_whole(names: list[str]) -> None:
    assert divide(names, None, split()) == Splits(tuple(names))


def test_files_of_another_kind_divide_nothing_and_stay() -> None:
    assert told(["train/a.png", "test/b.png", "labels.csv"]) == {"train": ("labels.csv", "train/a.png"), "test": ("test/b.png",)}


def test_metadata_above_is_of_every_split_below() -> None:
    found = told(["metadata.csv", "train/a.png", "train/metadata.jsonl", "test/b.png"])
    assert found == {"train": ("metadata.csv", "train/a.png", "train/metadata.jsonl"), "test": ("metadata.csv", "test/b.png")}


def test_without_a_word_the_train_split_is_read_and_validation_held_out() -> None:
    found = divide(list("abcdefg"), HUB, split())
    assert found == Splits(("a", "b"), ("c",), "train", "validation", {"test": 3, "": 1})
    assert list(found.words()) == ["split train, held out validation", "split test (3 files) and 1 file of no split left out"]


def test_without_a_validation_split_a_share_is_held_out() -> None:
    found = divide(list("abdef"), {"train": ["a", "b"], "test": ["d", "e", "f"]}, split())
    assert (found.train, found.validation, found.others) == (("a", "b"), (), {"test": 3})
    assert list(found.words()) == ["split train", "split test (3 files) left out"]


def test_only_one_split_is_all() -> None:
    assert divide(["a", "b"], {"test": ["a", "b"]}, split()) == Splits(("a", "b"))
    assert not list(Splits(("a", "b")).words())


@pytest.mark.parametrize(
    ("wanted", "train", "held", "others"),
    [
        (split("test"), "test", "validation", {"train": 2}),
        (split("validation"), "validation", "", {"train": 2, "test": 3}),
        (split(None, "test"), "train", "test", {"validation": 1}),
        (split("training", "val"), "train", "validation", {"test": 3}),
        (split("train", "s3://bucket/other"), "train", "", {"validation": 1, "test": 3}),
    ],
)
def test_splits_are_named(wanted: Split, train: str, held: str, others: dict[str, int]) -> None:
    found = divide(list("abcdef"), HUB, wanted)
    assert (found.train_name, found.validation_name, found.others) == (train, held, others)
    assert list(found.train) == HUB[train]
    assert list(found.validation) == HUB.get(held, [])


def test_a_name_of_the_manifest_divides_folders_too() -> None:
    names = ["labelled/a.png", "unlabelled/b.png", "unlabelled/c.png", "train/d.png"]
    found = divide(names, None, split("unlabelled"))
    assert found == Splits(("unlabelled/b.png", "unlabelled/c.png"), (), "unlabelled", "", {"train": 1, "": 1})
    assert divide(["dev/a", "val/b", "train/c"], None, split(None, "dev")).validation == ("dev/a",)


@pytest.mark.parametrize(
    ("names", "wanted", "message"),
    [
        (["train/a", "test/b"], split("trian"), r'no split "trian" .*data.split.train.*has train and test. did you mean "train"'),
        (["train/a", "test/b"], split(None, "holdout"), r'no split "holdout" .*data.split.validation.*name one of those'),
        (["a", "b"], split("train"), r'no split "train" .*neither folders nor names of files divide the data'),
        (["train/a", "test/b"], split("train", "training"), r"both trained on and held out.*name two of train and test"),
    ],
)
def test_names_that_are_not_there(names: list[str], wanted: Split, message: str) -> None:
    with pytest.raises(JobError, match=message) as error:
        divide(names, None, wanted)
    assert error.value.code == "GTJ0102"


def test_several_splits_and_none_of_them_train() -> None:
    with pytest.raises(JobError, match=r"none of the data's splits is called train .*it has de and en.*data.split.train: de") as error:
        divide(["a", "b"], {"de": ["a"], "en": ["b"]}, split(), "hf://datasets/org/name")
    assert error.value.code == "GTJ0113"
