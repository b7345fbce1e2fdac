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
    words = "{% for m in messages %}{{ m.role + '\n' + m.content + eos_token }}{% endfor %}"
    (root / "chat.jinja").write_text(words + "{% if add_generation_prompt %}{{ 'assistant\n' }}{% endif %}")
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
                **({"template": f"file://{root / 'chat.jinja'}"} if "chat.jsonl" in sources else {}),
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


def asked_ahead(asked: Spec, out: Path, cache: Path, said: list[tuple[int, int]] | None = None) -> tuple[int, int]:
    from trainjobs.checkpointer.taught_ahead import prepared
    from trainjobs.data import open_source

    shown = said if said is not None else []
    return prepared(asked, open_source(asked, cache), cache, f"file://{out}", CPU, lambda done, of: shown.append((done, of)))


def test_what_was_prepared_is_what_a_run_would_ask(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss, gradient of all weights and held-out divergence, to the last bit; and the teacher is not even loaded."""
    from trainjobs.checkpointer import taught_ahead
    from trainjobs.data import top_logits

    monkeypatch.setattr(top_logits, "PART", 4)
    for data, packing in (("chat.jsonl", "bfd"), ("text", "auto")):
        whole, out = spec(root, data, packing, topK=5), tmp_path / f"out-{packing}"
        expected = losses(whole, tmp_path / "a")
        files, before = asked_ahead(whole, out, tmp_path / "b")
        assert (files, before) == (len(list(out.glob("*.bin"))), 0)
        ready = spec(root, data, packing, topK=5, prepared=f"file://{out}")
        with monkeypatch.context() as context:
            context.setattr(taught_ahead, "_loaded", None)
            found = losses(ready, tmp_path / "c")
        for one, other in zip(found, expected, strict=True):
            for a, b in zip(one, other, strict=True):
                assert torch.equal(a, b)


def test_asking_ahead_goes_on_where_it_stopped(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainjobs.data import top_logits

    monkeypatch.setattr(top_logits, "PART", 4)
    asked, write, made = spec(root, "pairs.jsonl", "none", topK=3), top_logits.write, list[int]()

    def stops(*given: Any, **more: Any) -> None:
        made.append(1)
        if len(made) == 2:
            raise KeyboardInterrupt
        write(*given, **more)

    with monkeypatch.context() as context:
        context.setattr(top_logits, "write", stops)
        with pytest.raises(KeyboardInterrupt):
            asked_ahead(asked, tmp_path / "out", tmp_path / "a")
    ready = spec(root, "pairs.jsonl", "none", topK=3, prepared=f"file://{tmp_path / 'out'}")
    with pytest.raises(JobError, match=r"GTJ0113 the teacher was not asked to the end .*: 1 of 3 files"):
        opened(ready, tmp_path / "b")
    shown: list[tuple[int, int]] = []
    assert asked_ahead(asked, tmp_path / "out", tmp_path / "c", shown) == (3, 1)
    assert shown == [(1, 3), (2, 3), (3, 3)]
    asked_ahead(asked, tmp_path / "whole", tmp_path / "d")
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


def test_another_teacher_or_question_than_was_prepared_is_refused(root: Path, tmp_path: Path) -> None:
    from tests.models.bases import base

    out = tmp_path / "out"
    asked_ahead(spec(root, "pairs.jsonl", "none", topK=3), out, tmp_path / "cache")
    place: dict[str, Any] = {"prepared": f"file://{out}"}
    base(tmp_path / "other", "gpt2", width=32)
    other = {"teacher": {"source": f"file://{tmp_path / 'other'}"}}
    for asked, words in (
        (spec(root, "pairs.jsonl", "none", topK=3, **place, **other), "another teacher was asked"),
        (spec(root, "pairs.jsonl", "none", topK=4, **place), "topK was 3, and is 4 now"),
        (spec(root, "pairs.jsonl", "none", topK=3, temperature=2.0, **place), "temperature was 1.0, and is 2.0 now"),
        (spec(root, "chat.jsonl", topK=3, **place), "about other data"),
    ):
        with pytest.raises(JobError, match=words) as error:
            opened(asked, tmp_path / "cache")
        assert error.value.code == "GTJ0108"
        with pytest.raises(JobError, match=words):
            asked_ahead(asked, out, tmp_path / "cache")
    with pytest.raises(JobError, match="GTJ0118 no teacher has spoken there"):
        opened(spec(root, "pairs.jsonl", "none", topK=3, prepared=f"file://{tmp_path / 'none'}"), tmp_path / "cache")


def test_what_was_prepared_is_known_by_its_bytes(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "out"
    ready = spec(root, "pairs.jsonl", "none", topK=3, prepared=f"file://{out}")
    asked_ahead(ready, out, tmp_path / "cache")
    _, account = opened(ready, tmp_path / "a")
    opened(ready, tmp_path / "a", before=account)
    assert "last digits" not in caplog.text
    told = json.loads((out / "taught.json").read_text())
    (out / "taught.json").write_text(json.dumps(told | {"computed": ["cuda", "1", "2"]}))
    with pytest.raises(JobError, match="GTJ0208 the teacher's answers are others than the run began with"):
        opened(ready, tmp_path / "b", before=account)
    opened(ready, tmp_path / "c")
    assert "what the teacher says was computed by cuda, 1, 2; asked here, by cpu" in caplog.text
    data = bytearray((out / "train-00000.bin").read_bytes())
    data[-1] ^= 1
    (out / "train-00000.bin").write_bytes(data)
    with pytest.raises(JobError, match="GTJ0113 what the teacher said is damaged"):
        opened(ready, tmp_path / "d")
