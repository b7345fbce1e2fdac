"""What a teacher says, asked once: the same as asking it at every step, whatever the data looks like; asked again for nothing but what is
missing; by every process a share; and of another teacher, or other data, anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.noise import Noise
from trainjobs.world import World

pytestmark = pytest.mark.slow

CPU = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models.bases import base

    root = tmp_path_factory.mktemp("taught")
    base(root / "student", "llama", layers=1)
    base(root / "teacher", "gpt2", width=48)
    rows = [{"prompt": "ask " * (1 + n % 3) + str(n), "completion": "say" * (1 + n % 4)} for n in range(12)]
    (root / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "chat.jsonl").write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}]})
            + "\n"
            for row in rows
        )
    )
    (root / "text").mkdir()
    (root / "text" / "one.txt").write_text("\n".join(f"{row['prompt']} {row['completion']}" for row in rows))
    return root


def spec(root: Path, data: Any, packing: str = "auto", **distill: Any) -> Spec:
    sources = [data] if isinstance(data, str) else data
    named = (
        {"source": f"file://{root / data}"}
        if isinstance(data, str)
        else {"sources": [{"source": f"file://{root / one}"} for one in sources]}
    )
    return Spec.model_validate(
        {
            "language": {
                "method": "distill",
                "network": {"contextLength": 32},
                "base": {"source": f"file://{root / 'student'}"},
                "packing": packing,
                **({"template": "zephyr"} if "chat.jsonl" in sources else {}),
                "distill": {"teacher": {"source": f"file://{root / 'teacher'}"}, **distill},
            },
            "data": {**named, "holdout": 0.2},
            "training": {"steps": 4, "batch": {"global": 4}},
        }
    )


def opened(asked: Spec, cache: Path, world: World = CPU, before: Any = None, said: list[str] | None = None) -> tuple[Any, dict[str, Any]]:
    from trainjobs.checkpointer.taught_ahead import foretold
    from trainjobs.data import open_source

    return foretold(asked, open_source(asked, cache), cache, world, before or {}, (said if said is not None else []).append)


def losses(asked: Spec, cache: Path) -> list[tuple[Tensor, Tensor]]:
    """(loss, gradient of all weights) of a step, and the held-out divergence."""
    from trainjobs.checkpointer.teacher import with_teacher
    from trainjobs.objectives.build import build
    from trainjobs.objectives.phase import Batch

    source, _ = opened(asked, cache)
    model = with_teacher(build(asked, source.info), asked, source.info, CPU, cache)
    assert ("teacher" in model.modules) == (asked.language is not None and asked.language.distill.top_k is None)
    positions = torch.arange(3, 7)
    noise = Noise.of(0, 0, "train.0", positions)
    objective: Any = model.objective
    loss, _ = objective.loss(Batch(source.batch(positions, 0, noise), noise, 4))
    network = model.modules["model"]
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    held = torch.arange(source.info.heldout)
    told = objective.heldout(Batch(source.heldout_batch(held), Noise.of(0, 0, "heldout", held), len(held)))
    return [(loss.detach(), torch.cat([one.flatten() for one in gradients])), told["divergence"], told["loss"]]


@pytest.mark.parametrize(
    ("data", "packing"),
    [("pairs.jsonl", "none"), ("chat.jsonl", "bfd"), ("pairs.jsonl", "wrapped"), ("text", "auto"), (["pairs.jsonl", "chat.jsonl"], "bfd")],
)
def test_all_of_the_vocabulary_is_what_the_teacher_says_at_every_step(data: Any, packing: str, root: Path, tmp_path: Path) -> None:
    for beta in (0.0, 0.5, 1.0) if packing == "none" else (0.3,):
        settings = {"temperature": 2.0, "alpha": 0.6, "beta": beta}
        once, live = (losses(spec(root, data, packing, **settings, **more), tmp_path) for more in ({"topK": 259}, {}))
        for one, other in zip(once, live, strict=True):
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_a_teacher_is_asked_for_nothing_but_what_is_missing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainjobs.data import top_logits

    monkeypatch.setattr(top_logits, "PART", 4)
    asked, said = spec(root, "pairs.jsonl", "none", topK=3), list[str]()
    source, account = opened(asked, tmp_path, said=said)
    files = sorted((tmp_path / "teacher").glob("*.bin"))
    assert len(files) == -(-source.info.length // 4) + 1
    assert said == [f"asking the teacher {number}/{len(files)}" for number in range(len(files))]
    assert set(account) == {"teacher"}
    before = {path: (path.stat().st_ino, path.read_bytes()) for path in files}
    files[1].unlink()
    (tmp_path / "teacher" / f"{files[2].name}.77.partial").write_bytes(b"killed")
    said.clear()
    opened(asked, tmp_path, said=said)
    assert said == ["asking the teacher 0/1"]
    assert files[1].read_bytes() == before[files[1]][1]
    assert all(path.stat().st_ino == before[path][0] for path in files if path != files[1])
    # Nothing is missing: the teacher's weights are not even read.
    from trainjobs.models import pretrained

    monkeypatch.setattr(pretrained, "load", None)
    opened(asked, tmp_path)
    # Another k, temperature or data, and it is asked anew.
    for other in (
        spec(root, "pairs.jsonl", "none", topK=4),
        spec(root, "pairs.jsonl", "none", topK=3, temperature=2.0),
        spec(root, "chat.jsonl", topK=3),
    ):
        with pytest.raises(TypeError):
            opened(other, tmp_path)


def test_every_process_of_a_machine_asks_a_share(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import platform
    from threading import Barrier, Thread

    from trainjobs.data import top_logits

    monkeypatch.setattr(top_logits, "PART", 2)
    barrier, heard = Barrier(3), list[Any]([None] * 3)
    names = ["one", "two", "one"]  # the second rank is alone on its machine

    class Ranks(World):
        def gather(self, value: Any) -> list[Any]:
            barrier.wait(60)
            heard[self.rank] = value if value != platform.node() else names[self.rank]
            barrier.wait(60)
            return list(heard)

    asked, said = spec(root, "pairs.jsonl", "none", topK=3), [list[str]() for _ in range(3)]
    found: list[Any] = [None] * 3

    def rank(number: int) -> None:
        folder = tmp_path / names[number]
        found[number] = opened(asked, folder, Ranks(number, 3, torch.device("cpu")), said=said[number])[0]

    threads = [Thread(target=rank, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = len(list((tmp_path / "one" / "teacher").glob("*.bin")))
    assert len(said[0]) + len(said[2]) == len(said[1]) == count
    assert abs(len(said[0]) - len(said[2])) <= 1
    positions = torch.arange(5)
    batches = [one.batch(positions, 0, Noise.of(0, 0, "train", positions)) for one in found]
    assert all(torch.equal(batches[0][name], other[name]) for other in batches[1:] for name in batches[0])


def test_what_cannot_be_asked_once_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"GTJ0108 topK 300 of a vocabulary of 259 .* lower it to 259"):
        opened(spec(root, "pairs.jsonl", topK=300), tmp_path)
    asked = spec(root, "pairs.jsonl", topK=3)
    _, account = opened(asked, tmp_path)
    account["teacher"] = {**account["teacher"], "digest": "sha256:0", "files": {"config.json": "sha256:0"}}
    with pytest.raises(JobError, match=r"GTJ0208 the teacher is another one than the checkpoint's") as refused:
        opened(asked, tmp_path, before=account)
    assert refused.value.where == "language.distill.teacher.source"
