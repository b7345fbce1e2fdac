"""Files that are read as initial weights, and those that are refused: transformers' and torch's models as the networks."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainjobs.api.errors import JobError
from trainjobs.checkpointer.initial import _read
from trainjobs.data.tokens import kept, train_bpe
from trainjobs.export.huggingface import text, with_end


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 3)
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 7, bias=False)
        self.head.weight = self.embedding.weight
        self.frozen = nn.Linear(3, 3)
        self.frozen.requires_grad_(False)
        self.register_buffer("table", torch.arange(4), persistent=False)


@dataclass
class Whole:
    """What `initial` asks of an engine and of what is trained, of networks that are not split."""

    module: nn.Module
    beside: dict[str, bytes] = field(default_factory=dict)

    @property
    def engines(self) -> dict[str, Whole]:
        return {"net": self}

    @property
    def trained(self) -> list[tuple[str, nn.Parameter]]:
        return [(name, parameter) for name, parameter in self.module.named_parameters() if parameter.requires_grad]

    def span(self, parameter: nn.Parameter) -> tuple[tuple[int, ...], int, int]:
        return tuple(parameter.shape), 0, parameter.numel()


NAMES = {"embedding.weight", "norm.weight", "norm.bias", "norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}


def state(*leave: str) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in Tied().state_dict().items() if name not in leave}


def read(uri: object, scratch: Path, **options: Any) -> dict[str, torch.Tensor]:
    scratch.mkdir(exist_ok=True)
    return _read(f"file://{uri}", Whole(Tied(), **options), scratch)["net"].tensors  # type: ignore[arg-type]


@pytest.mark.parametrize("leave", [("head.weight",), ("embedding.weight",), (), ("head.weight", "frozen.weight", "frozen.bias")])
def test_a_tied_weight_has_two_names_and_frozen_ones_do_not_matter(leave: tuple[str, ...], tmp_path: Path) -> None:
    given = state(*leave)
    (tmp_path / "in").mkdir()
    save_file(given, tmp_path / "in" / "net.safetensors")
    found = read(tmp_path / "in", tmp_path / "scratch")
    assert found.keys() == NAMES
    weight = given["embedding.weight"] if "embedding.weight" in given else given["head.weight"]
    assert torch.equal(found["embedding.weight"], weight.flatten())
    assert torch.equal(found["norm.running_var"], given["norm.running_var"])


@pytest.mark.parametrize("name", ["net", "model"])
def test_by_the_networks_name_or_hugging_faces_or_the_file_itself(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save_file(state("head.weight"), tmp_path / "in" / f"{name}.safetensors")
    assert read(tmp_path / "in", tmp_path / "scratch").keys() == NAMES
    assert read(tmp_path / "in" / f"{name}.safetensors", tmp_path / "scratch").keys() == NAMES


def test_parts_by_their_index(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    given, where = state("head.weight"), {}
    for number, (name, value) in enumerate(given.items()):
        save_file({name: value}, tmp_path / "in" / f"part-{number}.safetensors")
        where[name] = f"part-{number}.safetensors"
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": where}))
    assert read(tmp_path / "in", tmp_path / "scratch").keys() == NAMES
    (tmp_path / "in" / "part-2.safetensors").unlink()
    with pytest.raises(JobError, match=r"GTJ0118.*part-2"):
        read(tmp_path / "in", tmp_path / "scratch")
    for wrong in ("{", "[]", '{"weight_map": {"a": "../../etc/passwd"}}', '{"weight_map": {"a": 3}}'):
        index.write_text(wrong)
        with pytest.raises(JobError, match=r"GTJ0209.*index.json"):
            read(tmp_path / "in", tmp_path / "scratch")


REFUSED = {
    "missing": (state("norm.bias"), r"norm.bias \[3\] is not there"),
    "a buffer is missing": (state("norm.running_mean"), r"norm.running_mean \[3\] is not there"),
    "misshapen": ({**state(), "norm.bias": torch.zeros(2, 2)}, r"norm.bias is \[2, 2\] there and \[3\] here"),
    "one too many": ({**state(), "lora.weight": torch.zeros(2)}, r"net has no lora.weight \[2\]"),
    "all of it": ({f"x{i}": torch.zeros(1) for i in range(5)}, r"and 8 more"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_tensors_are_named(case: str, tmp_path: Path) -> None:
    tensors, words = REFUSED[case]
    save_file({name: value.clone() for name, value in tensors.items()}, tmp_path / "net.safetensors")
    with pytest.raises(JobError, match=f"GTJ0208.*{words}"):
        read(tmp_path / "net.safetensors", tmp_path / "scratch")


def test_every_type_of_number_and_any_alignment(tmp_path: Path) -> None:
    """A writer need not pad its header, as the safetensors library does."""
    given = {**state("head.weight"), "norm.bias": torch.tensor([1.5, -2.0, 0.25]).bfloat16(), "norm.weight": torch.ones(3).double()}
    header, data = {}, b""
    for name, value in given.items():
        kind = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64"}[value.dtype]
        raw = value.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {"dtype": kind, "shape": list(value.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    for padding in range(8):
        words = json.dumps(header).encode() + b" " * padding
        (tmp_path / "net.safetensors").write_bytes(len(words).to_bytes(8, "little") + words + data)
        found = read(tmp_path / "net.safetensors", tmp_path / "scratch")
        assert all(torch.equal(found[name], given[name].flatten()) for name in found)
        assert found["norm.bias"].dtype == torch.bfloat16


def test_a_file_that_is_cut_off_or_something_else(tmp_path: Path) -> None:
    file = tmp_path / "net.safetensors"
    save_file(state(), file)
    whole = file.read_bytes()
    for damaged in (b"", whole[:5], whole[:40], whole[:-1], b"\xff" * 100, b"PK\x03\x04" + whole):
        file.write_bytes(damaged)
        with pytest.raises(JobError, match=r"GTJ0209.*net.safetensors"):
            read(file, tmp_path / "scratch")
    file.unlink()
    with pytest.raises(JobError, match=r"GTJ0118.*checkpoints.resumeFrom"):
        read(file, tmp_path / "scratch")


def test_one_file_is_not_enough_for_two_networks(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "net.safetensors")

    class Two(Whole):
        @property
        def engines(self) -> dict[str, Whole]:
            return {"generator": self, "discriminator": self}

    with pytest.raises(JobError, match=r"GTJ0208.*generator, discriminator"):
        _read(f"file://{tmp_path}/net.safetensors", Two(Tied()), tmp_path)  # type: ignore[arg-type]


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    ours, theirs = (train_bpe([words * 50], 300) for words in ("some words about one thing ", "other letters: qwerty zxcvbn "))
    save_file(state(), tmp_path / "net.safetensors")
    beside = kept(ours)
    assert read(tmp_path, tmp_path / "scratch", beside=beside)
    (tmp_path / "tokenizer.json").write_bytes(text(with_end(json.loads(beside["tokenizer.json"]), ours.end)))
    assert read(tmp_path, tmp_path / "scratch", beside=beside)
    with pytest.raises(JobError, match=r"GTJ0208.*another tokenizer"):
        read(tmp_path, tmp_path / "scratch", beside=kept(theirs))
    assert read(tmp_path, tmp_path / "scratch")


def test_in_part_what_fits_is_taken_and_the_rest_is_listed(tmp_path: Path) -> None:
    wrong = {**state("norm.bias", "head.weight"), "embedding.weight": torch.zeros(8, 3), "strange": torch.zeros(2)}
    save_file(wrong, tmp_path / "net.safetensors")
    asked: Any = Whole(Tied())
    with pytest.raises(JobError, match="not those of net"):
        _read(f"file://{tmp_path}", asked, tmp_path)
    found = _read(f"file://{tmp_path}", asked, tmp_path, partly=True)["net"]
    assert found.tensors.keys() == NAMES - {"norm.bias", "embedding.weight"}
    words = found.words("net")
    assert words.startswith("initial weights of the net: 4 tensors taken, 3 left: ")
    for part in ("embedding.weight is [8, 3] there and [7, 3] here", "norm.bias [3] is not there", "net has no strange [2]"):
        assert part in words


def test_in_part_nothing_at_all_is_refused(tmp_path: Path) -> None:
    save_file({"strange": torch.zeros(2)}, tmp_path / "net.safetensors")
    asked: Any = Whole(Tied())
    with pytest.raises(JobError) as refused:
        _read(f"file://{tmp_path}", asked, tmp_path, partly=True)
    assert refused.value.code == "GTJ0208"
