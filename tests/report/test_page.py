"""report.html: whole with full data, partial data and none; nothing in it can run or load what it should not."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.checkpoints import Keep
from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Checkpoints, files_below, open_store
from trainjobs.report import page
from trainjobs.report.page import write_report

HOSTILE = '</script><script>alert(1)</script><img src=x onerror="alert(2)">&"\''
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010806000000") + b"rest"


class Elements(HTMLParser):
    """Every element and every attribute, as a browser would see them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


def read(run: Path) -> tuple[str, Elements]:
    path = write_report(run)
    assert path == run / "report.html"
    text = path.read_text(encoding="utf-8")
    return text, Elements(text)


def embedded(text: str) -> Any:
    """What the page's script reads."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert match is not None
    return json.loads(match[1])


def write(run: Path, name: str, *rows: Any) -> None:
    (run / name).write_text("\n".join(json.dumps(row) for row in rows) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A GAN that failed in its second attempt."""
    folder = tmp_path / "faces"
    (folder / "samples").mkdir(parents=True)
    (folder / "job.yaml").write_text("metadata: {name: faces}  # mine\nspec:\n  gan: {}\n")
    write(folder, "job.json", {"metadata": {"name": "faces"}, "spec": {"gan": {}, "data": {"source": "builtin:digits"}}})
    write(folder, "progress.json", {"phase": "Failed", "step": 30, "totalSteps": 100, "samples": 1920, "workers": 2, "updatedAt": 1000.0})
    write(
        folder,
        "metrics.jsonl",
        *({"step": s, "samples": 64 * s, "time": s, "loss/D": 1.0 / s, "loss/G": 2.0, "lr/generator": 1e-4} for s in range(1, 31)),
    )
    write(
        folder, "attempts.jsonl",
        {"time": 1000.0, "event": "started", "attempt": 1, "step": 0},
        {"time": 1010.0, "event": "checkpoint", "attempt": 1, "step": 10},
        {"time": 1015.0, "event": "worker-lost", "attempt": 1, "step": 15, "message": "killed by SIGKILL"},
        {"time": 1016.0, "event": "resumed", "attempt": 2, "step": 10},
        {"time": 1030.0, "event": "failed", "attempt": 2, "step": 30},
    )  # fmt: skip
    error = JobError(
        "GTJ0206", "out of memory on rank 1", where="step 30", why="31 of 32 GiB were taken", how="lower training.batch.micro to 8"
    )
    write(folder, "failure.json", {**error.to_dict(), "rank": 1, "step": 30, "logTail": "line one\nline two"})
    write(folder, "versions.json", {"python": "3.11.7", "torch": "2.13.0"})
    for step in (10, 20, 30):
        (folder / "samples" / f"step-{step:06d}.png").write_bytes(PNG)
    return folder


def test_it_holds_everything_a_run_left(run: Path) -> None:
    checkpoints = Checkpoints(open_store(f"file://{run.resolve()}/checkpoints"), keep=Keep(), now=lambda: 1010.0)
    attempt = checkpoints.begin()
    shard = run / "shard"
    shard.mkdir()
    (shard / "model.pt").write_bytes(b"weights")
    digest = checkpoints.put_shard(checkpoints.prefix(10, attempt), 0, files_below(shard))
    commit = checkpoints.commit(
        checkpoints.prefix(10, attempt), attempt=attempt, step=10, samples=640, digests=[digest], metadata={}, metrics={}
    )
    text, elements = read(run)
    said = " ".join(elements.text)
    for expected in (
        "faces", "Failed", "generative adversarial network on builtin:digits",
        "GTJ0206", "out of memory on rank 1", "31 of 32 GiB were taken", "lower training.batch.micro to 8", "line two",
        "Discriminator loss", "Generator loss", "Learning rate",
        "killed by SIGKILL", "worker-lost", "# mine", "2.13.0",
        commit.manifest_digest.removeprefix("sha256:"),
    ):  # fmt: skip
        assert expected in said, expected
    assert len(elements.all("figure")) == 3
    assert [sample["step"] for sample in embedded(text)["samples"]] == [10, 20, 30]


def test_how_to_go_on_is_said_of_where_the_run_is(run: Path) -> None:
    (run / "logs").mkdir(exist_ok=True)
    (run / "logs" / "driver.log").write_text("begun")
    assert f"tensorboard --logdir {run}/events" in read(run)[0]
    write(run, "record.json", {"uri": "s3://bucket/runs/faces"})
    text, _ = read(run)
    assert "tensorboard" not in text, "which cannot read a record"
    assert "gtj logs s3://bucket/runs/faces" in text


def test_discriminator_and_generator_have_charts_of_their_own(run: Path) -> None:
    text, _ = read(run)
    curves = [chart["curves"] for chart in embedded(text)["charts"]]
    assert [len(chart) for chart in curves] == [1, 1, 1]
    assert curves[0][0]["texts"][:2] == ["1", "0.5"]
    assert curves[1][0]["texts"][:2] == ["2", "2"]


def test_real_samples_and_reconstructions_stand_beside_what_was_drawn(run: Path) -> None:
    text, elements = read(run)
    assert "real" not in [image.get("alt") for image in elements.all("img")]
    (run / "samples" / "real.png").write_bytes(PNG)
    (run / "samples" / "reconstructed-000020.png").write_bytes(PNG)
    (run / "samples" / "reconstructed-000099.png").write_bytes(PNG)
    text, elements = read(run)
    assert [bool(sample["rebuilt"]) for sample in embedded(text)["samples"]] == [False, True, False]
    shown = {image["alt"]: image for image in elements.all("img")}
    assert (shown["real samples"]["src"] or "").startswith("data:image/png;base64,")
    assert shown["held-out samples and their reconstructions"].get("src") is None, "the newest step has none"
    assert [sample["step"] for sample in embedded(text)["samples"]] == [10, 20, 30], "neither is taken for what was drawn"


def test_what_lies_between_samples_stands_beside_them(run: Path) -> None:
    (run / "samples" / "between-000030.png").write_bytes(PNG)
    text, elements = read(run)
    assert [bool(sample["between"]) for sample in embedded(text)["samples"]] == [False, False, True]
    shown = {image["alt"]: image for image in elements.all("img")}
    assert (shown["what lies between two samples"]["src"] or "").startswith("data:image/png;base64,")


def test_real_texts_stand_beside_drawn_ones(run: Path) -> None:
    for name in ("real.txt", "step-000040.txt"):
        (run / "samples" / name).write_text(f"this is {name}")
    said = " ".join(read(run)[1].text)
    assert "this is real.txt" in said
    assert "this is step-000040.txt" in said


def test_curves_are_marked_where_the_run_did_not_simply_go_on(run: Path) -> None:
    with (run / "attempts.jsonl").open("a") as file:
        file.write(json.dumps({"time": 1017.0, "event": "dataChanged", "step": 12, "message": "2 files added"}) + "\n")
        file.write(json.dumps({"time": 1018.0, "event": "rolled back", "step": 14, "message": "loss not finite"}) + "\n")
    text, _ = read(run)
    assert text.count("data changed at step 12: 2 files added") == 3, "in every chart"
    assert text.count("rolled back at step 14: loss not finite") == 3
    assert text.count("resumed at step 10") == 3


def test_a_failure_is_told_once(run: Path) -> None:
    write(
        run,
        "attempts.jsonl",
        {"time": 1.0, "event": "started", "step": 0},
        {"time": 2.0, "event": "failed", "message": "GTJ0207 loss not finite"},
    )
    error = JobError("GTJ0207", "loss not finite", where="step 3")
    write(run, "failure.json", {**error.to_dict(), "logTail": "trainjobs.api.errors.JobError: GTJ0207 loss not finite (step 3)\n"})
    _, elements = read(run)
    assert "".join(elements.text).count("loss not finite") == 1
    (run / "failure.json").unlink()
    assert "GTJ0207 loss not finite" in "".join(read(run)[1].text), "without its account, the timeline has it"


def test_what_the_command_line_changed_is_marked_in_the_configuration(run: Path) -> None:
    write(run, "job.json", {"metadata": {"name": "faces"}, "spec": {"gan": {}, "training": {"steps": 100}}})
    write(run, "changes.json", {"spec.training.steps": {"by": "--steps 100", "was": 2000}})
    text, _ = read(run)
    assert re.search(r"<mark>.*<b>steps</b>: 100.*</mark>.*--steps 100; 2000 in the manifest", text)
    assert "changed" in text


def test_no_tile_is_empty_whatever_the_width(run: Path) -> None:
    """Rows of tiles grow to the full width, and none of them is without a value; a note takes the place beside an odd chart."""
    text, _ = read(run)
    (style,) = re.findall(r"\.tiles \{([^}]*)\}", text)
    assert "flex-wrap: wrap" in style
    assert "flex: 1 1" in re.findall(r"\.tile \{([^}]*)\}", text)[0]
    assert text.count('<div class="tile">') == len(re.findall(r'<div class="tile"><span>[^<]+</span><strong>[^<]+</strong>', text)) > 4
    charts = text[text.index('<section class="charts">') :]
    assert charts.index('<p class="note">') < charts.index("</section>")


def test_it_loads_nothing(run: Path) -> None:
    text, elements = read(run)
    for tag, attributes in elements.found:
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", text)
    (policy,) = [meta["content"] for meta in elements.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_hostile_text_stays_text(run: Path) -> None:
    write(run, "job.json", {"metadata": {"name": HOSTILE}, "spec": {"gan": {}, "data": {"source": HOSTILE}}})
    (run / "job.yaml").write_text(f"name: {HOSTILE}\n# {HOSTILE}\n{HOSTILE}\n")
    write(
        run, "metrics.jsonl", {"step": 1, HOSTILE: 1.0, f"loss/{HOSTILE}": float("nan")}, {"step": 2, HOSTILE: 2.0, f"loss/{HOSTILE}": 3.0}
    )
    write(run, "attempts.jsonl", {"time": 1, "event": HOSTILE, "step": HOSTILE, "message": HOSTILE, "attempt": HOSTILE})
    write(run, "failure.json", {"code": HOSTILE, "what": HOSTILE, "how": HOSTILE, "logTail": HOSTILE, "rank": HOSTILE})
    write(run, "versions.json", {HOSTILE: HOSTILE})
    for sample in (run / "samples").iterdir():
        sample.unlink()
    (run / "samples" / "step-000001.txt").write_text(HOSTILE)
    text, elements = read(run)
    assert len(elements.all("script")) == 2
    assert all("onerror" not in attributes for _, attributes in elements.found)
    assert [image.get("src") for image in elements.all("img")] == [None]
    assert HOSTILE in "".join(elements.text)
    assert embedded(text)["samples"][0]["text"] == HOSTILE


@pytest.mark.parametrize(
    "missing", ["job.json", "job.yaml", "progress.json", "metrics.jsonl", "attempts.jsonl", "failure.json", "versions.json"]
)
def test_each_part_may_be_missing_or_torn(run: Path, missing: str) -> None:
    (run / missing).unlink()
    assert "</html>" in read(run)[0]
    (run / missing).write_text('{"torn": [1, 2')
    assert "</html>" in read(run)[0]
    (run / missing).write_text('[1, 2, 3]\n"text"\nnull\n')
    assert "</html>" in read(run)[0]


def test_an_empty_folder_has_a_report(tmp_path: Path) -> None:
    _, elements = read(tmp_path)
    said = " ".join(elements.text)
    assert "no step was finished" in said
    assert "No samples were drawn" in said
    assert "none was saved" in said


def test_values_of_other_types_do_not_break_it(run: Path) -> None:
    write(run, "metrics.jsonl", {"step": 1, "loss": "inf"}, {"step": 2, "loss": None}, {"step": 3, "loss": [1]}, {"step": "x", "loss": 1.0})
    write(run, "progress.json", {"phase": "Succeeded", "step": None, "throughput": None, "metrics": None, "memoryBytes": "much"})
    assert "no finite value" in read(run)[0]


def test_it_stays_under_five_megabytes(run: Path) -> None:
    random.seed(0)
    names = [f"metric{index}" for index in range(12)]
    write(run, "metrics.jsonl", *({"step": s, **{name: random.random() for name in names}} for s in range(20_000)))
    for step in range(100):
        (run / "samples" / f"step-{step:06d}.png").write_bytes(PNG + random.randbytes(200_000))
    text, elements = read(run)
    assert len(text.encode()) < page.LIMIT
    assert len(elements.all("figure")) == 12
    steps = [sample["step"] for sample in embedded(text)["samples"]]
    assert (steps[0], steps[-1]) == (0, 99)
    assert max(len(curve["steps"]) for chart in embedded(text)["charts"] for curve in chart["curves"]) <= 2000


def test_writing_it_again_replaces_it(run: Path) -> None:
    read(run)
    write(run, "progress.json", {"phase": "Succeeded", "step": 100})
    assert "Succeeded" in read(run)[0]
    assert [path.name for path in run.glob(".*")] == []
