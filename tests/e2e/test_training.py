"""Every family's sample on two pods, from `gtj submit` to Succeeded, with its checkpoints in the bucket; and what goes on from them."""

from __future__ import annotations

import re

import pytest

from tests.e2e.jobs import BUCKET, SAMPLES, Team, manifest


@pytest.mark.parametrize("sample", sorted(path.stem for path in SAMPLES.glob("*.yaml")))
def test_sample_succeeds_on_two_pods(team: Team, sample: str) -> None:
    team.submit(manifest(sample, sample, steps=20))
    status = team.succeed(sample)
    assert status["phase"] == "Succeeded"
    assert status["attempts"] == 1
    assert status["progress"]["step"] == 20
    row = team.kubectl("get", "gtj", sample, "--no-headers").stdout
    assert re.search(r"Succeeded\s+100% 20/20", row), row
    assert any("000000000020" in key for key in team.keys(sample))


def test_progress_loss_and_time_left_are_shown(team: Team) -> None:
    """While it runs, the columns of `kubectl get gtj` hold what the head pod tells."""
    team.submit(manifest("long", steps=100000, every=50))
    team.reach("long", 30)

    def row() -> str | None:
        shown = team.kubectl("get", "gtj", "long", "--no-headers").stdout
        return shown if re.search(r"Running\s+0% \d+/100000\s+\d[\d.]*\s+\d+[hms]", shown) else None

    team.cluster.until("progress, loss and ETA in kubectl get gtj", row, 60)


def test_another_job_goes_on_from_the_bucket(team: Team) -> None:
    """`checkpoints.resumeFrom` names a checkpoint of the first job: the second begins at its step."""
    team.submit(manifest("first", steps=20, every=10))
    team.succeed("first")
    uri = team.status("first")["checkpoint"]["uri"]
    assert uri.startswith(f"s3://{BUCKET}/first/")
    team.submit(manifest("second", steps=30, every=10, checkpoints__resumeFrom=uri))
    assert team.succeed("second")["progress"]["step"] == 30
    # From the beginning it would have saved step 20 as well, and kept it.
    steps = {step for key in team.keys("second") for step in ("10", "20", "30") if f"0000000000{step}" in key}
    assert steps == {"30"}
