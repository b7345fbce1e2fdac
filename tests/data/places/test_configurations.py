"""Which files of a dataset are its data: as the `datasets` library has it."""

from __future__ import annotations

import re

import pytest

from trainjobs.api.errors import JobError
from trainjobs.data.places.configurations import choose, configurations, is_data, matching

URI = "hf://datasets/org/name@abc"


def card(*lines: str) -> str:
    return "\n".join(["---", "license: mit", "configs:", *lines, "---", "# A dataset"])


TWO = card("- config_name: en", "  data_files: en/*", "- config_name: no", "  data_files: no/*")
FILES = ["README.md", "en/train.jsonl", "en/test.jsonl", "no/train.jsonl"]


def test_without_a_list_every_file_is_data_but_those_beside() -> None:
    names = [
        ".gitattributes",
        "README.md",
        "LICENSE",
        "dataset_infos.json",
        "name.py",
        "a.parquet",
        "x/b.parquet",
        ".hidden/c.parquet",
        "notes.md",
    ]
    chosen = choose("# no YAML here", names, "", URI)
    assert chosen.files == ("a.parquet", "x/b.parquet", "notes.md")
    assert chosen.splits is None
    assert chosen.others == {".py": 1}


def test_a_configuration_is_chosen_by_name() -> None:
    chosen = choose(TWO, FILES, "no", URI)
    assert chosen.files == ("no/train.jsonl",)
    assert chosen.splits == {"train": ("no/train.jsonl",)}
    assert chosen.others == {"of other configurations": 2}


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        (["- config_name: en", "  default: true", "  data_files: en/*", "- config_name: no", "  data_files: no/*"], "en"),
        (["- config_name: no", "  data_files: no/*", "- config_name: default", "  data_files: en/*"], "en"),
        (["- data_files: en/*"], "en"),
        (["- config_name: only", "  data_files: en/*"], "en"),
    ],
)
def test_the_default_configuration(lines: list[str], name: str) -> None:
    assert choose(card(*lines), FILES, "", URI).files == ("en/test.jsonl", "en/train.jsonl")


def test_one_of_several_configurations_must_be_named() -> None:
    with pytest.raises(JobError, match=re.escape("2 configurations") + ".*they are en and no.*hf://datasets/org/name/en@abc") as error:
        choose(TWO, FILES, "", URI)
    assert error.value.code == "GTJ0113"


def test_an_unknown_configuration_gets_the_list() -> None:
    with pytest.raises(JobError, match=r'no configuration "nn" .*there are en and no') as error:
        choose(TWO, FILES, "nn", URI)
    assert error.value.code == "GTJ0102"
    with pytest.raises(JobError, match=r"there are de and en"):
        choose("", ["de/a.txt", "en/b.txt"], "fr", URI)


def test_a_folder_stands_for_a_configuration() -> None:
    chosen = choose("", FILES, "en", URI)
    assert chosen.files == ("en/train.jsonl", "en/test.jsonl")
    assert chosen.splits is None


@pytest.mark.parametrize(
    ("lines", "splits"),
    [
        (["- data_files: '*.jsonl'"], {"train": ("a.jsonl", "b.jsonl")}),
        (["- data_files: [a.jsonl, b.jsonl]"], {"train": ("a.jsonl", "b.jsonl")}),
        (
            ["- data_files:", "  - {split: train, path: a.jsonl}", "  - {split: test, path: b.jsonl}"],
            {"train": ("a.jsonl",), "test": ("b.jsonl",)},
        ),
        (["- data_files:", "  - {split: train, path: [a.jsonl, x/*]}"], {"train": ("a.jsonl", "x/c.jsonl", "x/d.jsonl")}),
        (["- data_files: {train: a.jsonl, test: [b.jsonl, x/c.jsonl]}"], {"train": ("a.jsonl",), "test": ("b.jsonl", "x/c.jsonl")}),
        (["- data_dir: x", "  data_files: c.*"], {"train": ("x/c.jsonl",)}),
        (["- data_files: ./x"], {"train": ("x/c.jsonl", "x/d.jsonl")}),
    ],
)
def test_what_a_card_may_write(lines: list[str], splits: dict[str, tuple[str, ...]]) -> None:
    assert choose(card(*lines), ["a.jsonl", "b.jsonl", "x/c.jsonl", "x/d.jsonl"], "", URI).splits == splits


def test_a_folder_of_a_card_is_divided_by_the_names_in_it() -> None:
    chosen = choose(card("- config_name: en", "  data_dir: en", "- config_name: no", "  data_dir: no"), FILES, "en", URI)
    assert chosen.files == ("en/test.jsonl", "en/train.jsonl")
    assert chosen.splits is None


def test_a_pattern_that_names_nothing_is_said() -> None:
    with pytest.raises(JobError, match=r'"en" .* has no files.*split test are en/\*\.csv, and there is none') as error:
        choose(card("- config_name: en", "  data_files:", "  - {split: test, path: en/*.csv}"), FILES, "en", URI)
    assert error.value.code == "GTJ0113"


def test_a_script_is_refused() -> None:
    with pytest.raises(JobError, match=r"is a script, name.py.*are not run.*hf://datasets/org/name@refs/convert/parquet") as error:
        choose("", ["README.md", "name.py", "raw.zip"], "", URI)
    assert error.value.code == "GTJ0113"


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["README.md"], "it holds nothing but 1 file that describes it"),
        ([], "it is empty"),
        (["a.zip", "b.arrow"], "its files are .arrow and .zip"),
    ],
)
def test_a_dataset_without_data_is_refused(names: list[str], why: str) -> None:
    with pytest.raises(JobError, match=re.escape(why)) as error:
        choose("", names, "", URI)
    assert error.value.code == "GTJ0113"


HEADS = ["", ": [", "configs: 3", "configs:\n- 3", "- a", "configs:\n- config_name: x", "configs: &a [*a]", "a: &b\n"]


@pytest.mark.parametrize("head", HEADS)
def test_a_card_may_be_anything(head: str) -> None:
    assert configurations(f"---\n{head}\n---\n") == {}
    assert configurations(head) == {}


def test_names_in_a_card_are_text() -> None:
    assert list(configurations(card("- config_name: no", "  data_files: a", "- config_name: 20220301.10", "  data_files: b"))) == [
        "no",
        "20220301.10",
    ]
    assert list(configurations("\ufeff---\r\nconfigs:\r\n- config_name: en\r\n  data_files: a\r\n---\r\ntext")) == ["en"]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("data/*.csv", ["data/a.csv"], ["data/x/a.csv", "data/acsv"]),
        ("**/*.csv", ["a.csv", "x/y/a.csv"], ["a.csvx"]),
        ("data/**", ["data/a", "data/x/b"], ["database/a"]),
        ("train-[0-9]?.tar", ["train-0a.tar"], ["train-a0.tar", "train-00.tarx"]),
        ("[!a]*", ["b"], ["a"]),
        ("a+b(c).txt", ["a+b(c).txt"], ["aab(c).txt"]),
        ("a[", ["a["], ["a"]),
    ],
)
def test_globs_of_cards(pattern: str, yes: list[str], no: list[str]) -> None:
    assert all(matching(pattern).fullmatch(name) for name in yes)
    assert not any(matching(pattern).fullmatch(name) for name in no)


def test_hidden_files_are_no_data() -> None:
    assert [name for name in ("a.txt", ".a.txt", "x/.b/c.txt", "__MACOSX/d.txt", "x/readme.MD") if is_data(name)] == ["a.txt"]
