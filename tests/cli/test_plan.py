"""gtj plan, through the command line: what it says of a job, of GPUs and profiles, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.models import bases
from trainjobs.api.job import Job
from trainjobs.cli.foreseen import annotated
from trainjobs.cli.main import status
from trainjobs.plan.forecast import ANNOTATION, chosen, read

pytestmark = pytest.mark.slow
VAE = """
apiVersion: gentrain.dev/v1alpha1
kind: GenerativeTrainingJob
metadata: {name: small}
spec:
  vae: {}
  data: {source: "builtin:digits"}
  training: {steps: 1000000, batch: {global: 64}}
  compute: {workers: 2, gpusPerWorker: 1}
"""
PROFILE = """
apiVersion: gentrain.dev/v1alpha1
kind: ComputeProfile
metadata: {name: cheap}
spec:
  accelerator: {type: l4-24gb, perNode: 4}
  price: {usdPerNodeHour: "2.5", source: our own}
"""
LISTED = PROFILE.replace("cheap", "listed").replace('price: {usdPerNodeHour: "2.5", source: our own}', "node: {instanceType: g6.12xlarge}")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "job.yaml").write_text(VAE)
    (tmp_path / "profiles.yaml").write_text(f"{PROFILE}---{LISTED.replace('spec:', 'spec:' + chr(10) + '  provider: aws')}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_nodes_are_compared_by_cost_and_everything_says_what_it_rests_on(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["plan", "-f", "job.yaml", "-p", "profiles.yaml", "--gpu", "h100-80gb"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.strip().startswith(("cheap", "listed", "h100"))]
    assert lines[0][0] == "cheap"
    assert "cheap: our own" in out
    assert "listed: Karpenter's list of instance types and prices for AWS, us-east-1, 2026-07-20, us-east-1" in out
    assert "time: assumed, 3 to 15 % of the GPU's peak" in out
    assert all(len(line) <= 130 for line in out.splitlines())


def test_as_data_and_a_rank_that_fits_nowhere_ends_with_4(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["plan", "-f", "job.yaml", "--gpu", "l4", "-o", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    best = data["options"][0]
    assert (best["nodes"], best["stage"], best["micro"], best["fits"]) == ("l4", 0, 32, True)
    assert best["usd"] is None
    huge = ["--set", "vae.network.channels=4096", "--set", "vae.network.latentDim=4096"]
    assert status(["plan", "-f", "job.yaml", "--gpu", "t4", *huge]) == 4
    assert "GTJ0133 a rank needs" in capsys.readouterr().err


def test_what_was_planned_is_written_into_a_job_of_the_same_network_batch_and_precision(folder: Path) -> None:
    manifest = yaml.safe_load(VAE)
    assert ANNOTATION not in annotated(Job.model_validate(manifest)).metadata.annotations, "nothing was planned"
    assert status(["plan", "-f", "job.yaml", "-p", "profiles.yaml"]) == 0
    ways = read(annotated(Job.model_validate(manifest)).metadata.annotations[ANNOTATION])
    assert {one.nodes for one in ways} == {"cheap", "listed"}
    assert all(one.seconds and one.usd and one.basis == "assumed" for one in ways)
    assert chosen(ways, 2, 1, 32, "cheap") is not None
    manifest["spec"]["training"]["steps"] = 10
    shorter = read(annotated(Job.model_validate(manifest)).metadata.annotations[ANNOTATION])
    assert [one.seconds for one in shorter] == [one.seconds for one in ways]
    assert all(one.usd is None for one in shorter), "of other steps"
    manifest["spec"]["training"]["batch"]["global"] = 32
    assert ANNOTATION not in annotated(Job.model_validate(manifest)).metadata.annotations
    assert status(["ls"]) == 0, "a plan is no run"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "h1000"], 'GTJ0102 "h1000" is no GPU that a plan knows'),
        (["-p", "job.yaml"], "GTJ0118 no ComputeProfile is in the file"),
    ],
)
def test_what_nobody_knows_is_refused(folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert status(["plan", "-f", "job.yaml", *arguments]) in (3, 7)
    assert said in capsys.readouterr().err


def test_a_model_that_goes_on_from_a_trained_one_is_counted_with_what_is_frozen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bases.model("gpt2").save_pretrained(folder / "base")
    bases.tokenizer(folder / "base")
    language = {"base": {"source": f"file://{folder}/base"}, "adapter": {"type": "lora"}, "network": {"contextLength": 64}}
    spec = {"language": language, "data": {"source": "builtin:stdlib-pairs"}, "training": {"steps": 10, "batch": {"global": 8}}}
    kind = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "based"}, "spec": spec}
    (folder / "based.yaml").write_text(json.dumps(kind))
    assert status(["plan", "-f", "based.yaml", "--gpu", "l4"]) == 0
    assert "trained  model 16,384 weights; 46,144 frozen" in capsys.readouterr().out
