"""Every family's sample on two pods, from `gtj submit` to Succeeded, with its checkpoints in the bucket."""

from __future__ import annotations

import re

import pytest

from tests.e2e.cluster import Object
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
    uid = team.job(sample)["metadata"]["uid"]
    keys = team.toolbox.keys(BUCKET, f"{sample}/{uid}/")
    assert any("000000000020" in key for key in keys), keys


def running(pod: Object) -> bool:
    return any((one.get("state") or {}).get("running") for one in (pod.get("status") or {}).get("containerStatuses") or ())


def of(kind: str) -> object:
    return lambda pod: pod["metadata"].get("labels", {}).get("ray.io/node-type") == kind and running(pod)
