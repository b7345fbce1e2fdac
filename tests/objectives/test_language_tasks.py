"""Masked models, translators and captioners against transformers' own losses and collator; each learns 64 samples and gives them back."""

from __future__ import annotations

import gettext
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.task_bases import MASK, VOCABULARY, base
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.language import Masking
from trainjobs.data import look, open_source
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.noise import Noise
from trainjobs.objectives.build import build
from trainjobs.objectives.language.masked import hidden
from trainjobs.objectives.phase import Batch

TASKS = {"bert": "masked", "t5": "seq2seq", "bart": "seq2seq", "vit-gpt2": "caption"}
PLAIN = Masking()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# --- what is hidden --------------------------------------------------------------------------------------------------------------------


def rows(count: int, length: int) -> tuple[Tensor, Tensor]:
    """(tokens, which of them may be masked): special ones at both ends, and filled up to the end in every second row."""
    tokens = torch.randint(0, 256, (count, length), generator=torch.Generator().manual_seed(0))
    maskable = torch.ones(count, length, dtype=torch.bool)
    maskable[:, 0] = maskable[:, -1] = False
    maskable[::2, length // 2 :] = False
    return tokens.masked_fill(~maskable, 257), maskable


def hide(tokens: Tensor, maskable: Tensor, settings: Masking = PLAIN, step: int = 0, first: int = 0) -> tuple[Tensor, Tensor]:
    noise = Noise.of(0, step, "train.0", torch.arange(first, first + len(tokens)))
    return hidden(tokens, maskable, noise, settings, 259, VOCABULARY, 64)


@pytest.mark.slow
def test_as_many_tokens_are_asked_for_and_hidden_as_by_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, DataCollatorForLanguageModeling

    tokens, maskable = rows(2000, 40)
    given, labels = hide(tokens, maskable)
    torch.manual_seed(0)
    collator = DataCollatorForLanguageModeling(AutoTokenizer.from_pretrained(base(tmp_path, "bert")), mlm_probability=0.15)
    theirs, their_labels = collator.torch_mask_tokens(tokens.clone(), (~maskable).long())
    shares = []
    for shown, wanted in ((given, labels), (theirs, their_labels)):
        asked = wanted != NOT_LEARNED
        assert not (asked & ~maskable).any(), "special tokens are never asked for"
        assert torch.equal(wanted[asked], tokens[asked])
        assert torch.equal(shown[~asked], tokens[~asked])
        masked, same = (shown == 259)[asked].double().mean(), (shown == tokens)[asked].double().mean()
        shares.append((float(asked.sum() / maskable.sum()), float(masked), float(same)))
    for ours, others, spread in zip(*shares, (0.002, 0.008, 0.007), strict=True):  # of 56,000 and 8,400 tokens: two standard deviations
        assert ours == pytest.approx(others, abs=3 * spread)
    assert shares[0] == pytest.approx((0.15, 0.8, 0.1), abs=0.015)


def test_what_is_hidden_is_the_sample_s_own_and_new_at_every_step() -> None:
    tokens, maskable = rows(8, 40)
    whole = hide(tokens, maskable)
    part = hide(tokens[4:, :30], maskable[4:, :30], first=4)
    assert torch.equal(whole[0][4:, :30][::2], part[0][::2]), "rows of 20 tokens, filled up to 40 or to 30"
    assert not torch.equal(hide(tokens, maskable, step=1)[0], whole[0])


def test_no_row_is_without_a_token_that_is_asked_for() -> None:
    tokens, maskable = rows(200, 5)
    _, labels = hide(tokens, maskable, Masking(share=0.01))
    assert ((labels != NOT_LEARNED).sum(1) >= 1).all()
    assert not ((labels != NOT_LEARNED) & ~maskable).any()


def test_shares_are_as_they_are_set() -> None:
    tokens, maskable = rows(500, 40)
    given, labels = hide(tokens, maskable, Masking(share=0.5, replaced=0.0, random=0.0))
    assert torch.equal(given, tokens)
    assert float((labels != NOT_LEARNED).sum() / maskable.sum()) == pytest.approx(0.5, abs=0.02)
    given, labels = hide(tokens, maskable, Masking(share=0.5, replaced=1.0, random=0.0))
    assert (given[labels != NOT_LEARNED] == 259).all()


# --- losses ----------------------------------------------------------------------------------------------------------------------------


def spec(folder: Path, kind: str, data: dict[str, Any], **more: Any) -> Spec:
    language = {"task": TASKS[kind], "base": {"source": f"file://{folder / kind}"}, "network": {"contextLength": 40}, **more}
    return Spec.model_validate({"language": language, "data": data, "training": {"steps": 1}})


def written(folder: Path, rows: list[dict[str, str]]) -> dict[str, Any]:
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"source": f"file://{folder}", "holdout": 0.0}


def taken(asked: Spec, cache: Path, count: int) -> tuple[Any, Any, Batch]:
    """(network, objective, a batch of the first samples)."""
    source = open_source(asked, cache, look(asked))
    torch.manual_seed(0)
    made = build(asked, source.info)
    positions = torch.arange(count)
    noise = Noise.of(0, 0, "train.0", positions)
    data = source.batch(positions, 0, noise)
    return made.modules["model"], made.objective, Batch(made.encode(data) if made.encode else data, noise, count)


PAIRS = [{"source": f"{n} and more"[: 3 + n], "target": "word " * (n % 3) + str(n)} for n in range(8)]


@pytest.mark.slow
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_the_loss_of_a_translator_is_transformers(kind: str, smoothing: float, tmp_path: Path) -> None:
    """What the decoder reads is what transformers itself makes of labels, and smoothing leaves labels out that are none."""
    from transformers.trainer_pt_utils import LabelSmoother

    base(tmp_path / kind, kind)
    model, objective, batch = taken(
        spec(tmp_path, kind, written(tmp_path / "pairs", PAIRS), loss={"labelSmoothing": smoothing}), tmp_path / "cache", 8
    )
    data = batch.data
    output = model(input_ids=data["source"], attention_mask=data["seen"], labels=data["labels"])
    theirs = LabelSmoother(epsilon=smoothing)(output, data["labels"]) if smoothing else output.loss
    assert objective.cross_entropy(batch)[0].item() == pytest.approx(theirs.item(), rel=1e-6)
    total, count = objective.heldout(batch)["loss"]
    assert float(total / count) == pytest.approx(output.loss.item(), rel=1e-6)
    assert int(count) == int((data["labels"] != NOT_LEARNED).sum()) == sum(len(row["target"]) + 1 + (kind == "bart") for row in PAIRS)


@pytest.mark.slow
def test_the_loss_of_a_masked_model_is_transformers_whatever_rows_are_filled_with(tmp_path: Path) -> None:
    base(tmp_path / "bert", "bert")
    data = written(tmp_path / "texts", [{"text": "abcdefgh"[: 2 + n]} for n in range(6)])
    model, objective, batch = taken(spec(tmp_path, "bert", data), tmp_path / "cache", 6)
    tokens, labels = objective._hidden(batch)
    theirs = model(input_ids=tokens, attention_mask=batch.data["seen"], labels=labels).loss
    assert objective.cross_entropy(batch)[0].item() == pytest.approx(theirs.item(), rel=1e-6)
    other = torch.where(batch.data["seen"].bool(), batch.data["tokens"], 65)
    again = Batch({**batch.data, "tokens": other}, batch.noise, 6)
    assert objective.cross_entropy(again)[0].item() == pytest.approx(theirs.item(), rel=1e-6)
    seen = Batch({**batch.data, "seen": torch.ones_like(batch.data["seen"])}, batch.noise, 6)
    assert abs(objective.cross_entropy(seen)[0].item() - theirs.item()) > 1e-4, "what fills up must not be seen"


@pytest.mark.slow
def test_a_long_text_becomes_pieces_with_a_beginning_and_an_end_each(tmp_path: Path) -> None:
    base(tmp_path / "bert", "bert")
    text = "".join(chr(97 + n % 26) for n in range(100))
    asked = spec(tmp_path, "bert", written(tmp_path / "texts", [{"text": text}]))
    source = open_source(asked, tmp_path / "cache", look(asked))
    positions = torch.arange(source.info.length)
    found = source.batch(positions, 0, Noise.of(0, 0, "x", positions))
    assert sorted(found["seen"].sum(1).tolist()) == [26, 40, 40]
    assert set(found["tokens"][:, 0].tolist()) == {257}
    texts = [bytes(b for b in row if b < 256) for row in found["tokens"].tolist()]
    assert sum(map(len, texts)) == 100


# --- refusals --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "task", "words"),
    [("bert", "causal", "language.task to masked"), ("t5", "masked", "language.task to seq2seq"), ("vit-gpt2", "seq2seq", "to caption")],
)
def test_a_base_of_another_task_is_refused_with_its_own(kind: str, task: str, words: str, tmp_path: Path) -> None:
    from trainjobs.data.pretrained import Pretrained
    from trainjobs.models.pretrained import configured

    folder = base(tmp_path, kind)
    with pytest.raises(JobError) as error:
        configured(Pretrained("s", "u", folder, {path.name: "d" for path in folder.iterdir()}), task)  # type: ignore[arg-type]
    assert error.value.code == "GTJ0109"
    assert words in error.value.how


@pytest.mark.slow
def test_a_masked_model_without_a_mask_is_refused(tmp_path: Path) -> None:
    folder = base(tmp_path / "bert", "bert")
    told = json.loads((folder / "tokenizer_config.json").read_text())
    del told["mask_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(told))
    asked = spec(tmp_path, "bert", written(tmp_path / "texts", [{"text": "abc"}] * 3))
    with pytest.raises(JobError, match="the base has no mask") as error:
        taken(asked, tmp_path / "cache", 1)
    assert error.value.code == "GTJ0109"


@pytest.mark.slow
def test_pictures_of_another_size_and_long_captions_are_refused(tmp_path: Path) -> None:
    base(tmp_path / "vit-gpt2", "vit-gpt2")
    shapes = {"source": "builtin:shapes", "images": {"size": 8}}
    with pytest.raises(JobError, match="pictures of size 8") as error:
        taken(spec(tmp_path, "vit-gpt2", shapes), tmp_path / "cache", 1)
    assert error.value.code == "GTJ0108"
    with pytest.raises(JobError, match="longer than 4 tokens") as error:
        taken(spec(tmp_path, "vit-gpt2", {**shapes, "images": {"size": 16}}, network={"contextLength": 4}), tmp_path / "cache", 1)
    assert error.value.code == "GTJ0113"


# --- 64 samples ------------------------------------------------------------------------------------------------------------------------


def fit(network: Any, objective: Any, batch: Batch, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(network.parameters(), rate)
    network.train()
    for step in range(steps):
        optimizer.zero_grad()
        noise = Noise.of(0, step, "train.0", batch.noise.samples)
        loss, _ = objective.cross_entropy(Batch(batch.data, noise, batch.size))
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, 2 * (1 - step / steps))
        optimizer.step()
    network.eval()


@pytest.mark.slow
def test_a_masked_model_learns_64_texts(tmp_path: Path) -> None:
    base(tmp_path / "bert", "bert", width=64, layers=2)
    texts = [{"text": "".join(chr(97 + (n * n * k + 7 * n + k) % 23) for k in range(12))} for n in range(64)]
    network, objective, batch = taken(spec(tmp_path, "bert", written(tmp_path / "texts", texts)), tmp_path / "cache", 64)
    fit(network, objective, batch, 400, 3e-3)
    with torch.no_grad():
        fresh = Batch(batch.data, Noise.of(0, 9999, "train.0", batch.noise.samples), 64)
        tokens, labels = objective._hidden(fresh)
        told, asked = objective._logits(tokens, batch.data["seen"]).argmax(2), labels != NOT_LEARNED
        assert float((told == labels)[asked].float().mean()) > 0.9
        shown = objective.sample(fresh).texts
    assert any(MASK in text.split("→")[0] for text in shown)
    assert sum(text.split("→ ")[1] in {row["text"] for row in texts} for text in shown) > 50


@pytest.mark.slow
def test_a_translator_learns_64_pairs(tmp_path: Path) -> None:
    base(tmp_path / "t5", "t5", width=64, layers=1)
    ones = ["", *["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]]
    pairs = [{"source": f"{n}", "target": f"{ones[n // 10]} {ones[n % 10]}".strip() or "nothing"} for n in range(64)]
    network, objective, batch = taken(spec(tmp_path, "t5", written(tmp_path / "pairs", pairs)), tmp_path / "cache", 64)
    fit(network, objective, batch, 250, 5e-3)
    with torch.no_grad():
        assert objective.hypotheses(batch) == objective.references(batch)
        shown = objective.sample(batch).texts
        theirs = network.generate(input_ids=batch.data["source"], attention_mask=batch.data["seen"], max_new_tokens=20, do_sample=False)
    assert f"{pairs[0]['source']}\n→ {pairs[0]['target']}\n= {pairs[0]['target']}" in shown
    assert [objective._text(row[1:].tolist()) for row in theirs] == objective.hypotheses(batch), "transformers' own generate says the same"


def messages() -> list[dict[str, str]]:
    """64 short ones of Django's own, English and German, each in one line; without any where it is not installed."""
    found = importlib.util.find_spec("django")
    if found is None or found.origin is None:
        return []
    folder = Path(found.origin).parent / "conf" / "locale" / "de" / "LC_MESSAGES"
    with (folder / "django.mo").open("rb") as file:
        catalog: dict[Any, str] = vars(gettext.GNUTranslations(file))["_catalog"]
    short = {source: target for source, target in catalog.items() if isinstance(source, str) and 3 < len(source) < 25 and len(target) < 25}
    return [{"source": source, "target": target} for source, target in sorted(short.items()) if "%" not in source][:64]


@pytest.mark.slow
@pytest.mark.skipif(not messages(), reason="not installed: django (pip install --no-deps django), whose messages are translated")
def test_a_translator_learns_64_messages_of_djangos_catalogues(tmp_path: Path) -> None:
    base(tmp_path / "t5", "t5", width=64, layers=1)
    pairs = messages()
    assert len(pairs) == 64
    network, objective, batch = taken(spec(tmp_path, "t5", written(tmp_path / "pairs", pairs)), tmp_path / "cache", 64)
    fit(network, objective, batch, 400, 5e-3)
    with torch.no_grad():
        made, wanted = objective.hypotheses(batch), objective.references(batch)
    assert len(set(wanted)) > 56
    assert sum(one == other for one, other in zip(made, wanted, strict=True)) > 60, list(zip(made, wanted, strict=True))[:8]


FEW = {"noiseDensity": 0.3, "meanNoiseSpanLength": 2.0}  # of 12 to 14 tokens 4, in two spans


def spans(folder: Path, *, sentinels: int = 4) -> Any:
    """Texts of which spans are hidden, opened."""
    base(folder / "t5", "t5", width=64, layers=1, sentinels=sentinels)
    texts = [{"text": "".join(chr(97 + (n * n * k + 7 * n + k) % 23) for k in range(12 + n % 3))} for n in range(64)]
    asked = spec(folder, "t5", {**written(folder / "texts", texts), "holdout": 0.1}, spanCorruption=FEW)
    return open_source(asked, folder / "cache", look(asked))


@pytest.mark.slow
def test_a_model_learns_spans_of_64_texts(tmp_path: Path) -> None:
    """It was pretrained once it knows what was hidden behind which sentinel, wherever that is: draws are new at every step."""
    source = spans(tmp_path)
    asked = Spec.model_validate(
        {
            "language": {"task": "seq2seq", "base": {"source": f"file://{tmp_path / 't5'}"}, "spanCorruption": FEW},
            "data": {"source": f"file://{tmp_path / 'texts'}"},
            "training": {"steps": 1},
        }
    )
    torch.manual_seed(0)
    made = build(asked, source.info)
    network, objective = made.modules["model"], made.objective
    positions, told = torch.arange(56), list[float]()
    optimizer = torch.optim.Adam(network.parameters(), 5e-3)
    for step in range(200):
        optimizer.param_groups[0]["lr"] = 6e-3 * min(1.0, 2 * (1 - step / 200))
        noise = Noise.of(0, step, "train.0", positions)
        loss, _ = objective.cross_entropy(Batch(source.batch(positions, 0, noise), noise, 56))  # type: ignore[attr-defined]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append(loss.item())
    assert told[0] > 5
    assert sum(told[-10:]) / 10 < 1.0
    network.eval()
    noise = Noise.of(0, 9999, "train.0", positions)
    with torch.no_grad():
        batch = Batch(source.batch(positions, 0, noise), noise, 56)
        shown = objective.sample(batch).texts
    assert sum(text.split("→ ")[1].split("\n= ")[0] == text.split("\n= ")[1] for text in shown) > 10, shown[:5]  # of 56
    assert shown[0].count("<extra_id_0>") == 3


@pytest.mark.slow
def test_a_captioner_learns_64_pictures(tmp_path: Path) -> None:
    base(tmp_path / "vit-gpt2", "vit-gpt2", width=64, layers=1)
    asked = spec(tmp_path, "vit-gpt2", {"source": "builtin:shapes", "images": {"size": 16}})
    network, objective, batch = taken(asked, tmp_path / "cache", 64)
    fit(network, objective, batch, 300, 3e-3)
    with torch.no_grad():
        made, wanted = objective.hypotheses(batch), objective.references(batch)
    assert len(set(wanted)) > 4
    assert sum(one == other for one, other in zip(made, wanted, strict=True)) > 60
