"""What a pod says is of one attempt of one job, counts only from its driver, and is written no more often than it is asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gentrain_operator import polls, report
from gentrain_operator.conditions import Condition, settled
from gentrain_operator.diagnose import diagnosed
from gentrain_operator.kube.client import as_yaml
from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.store import Key
from gentrain_operator.pace import Pace, said_only
from gentrain_operator.polls import NAMES, Endpoint, Polls
from gentrain_operator.rayjob import NONCE, nonce_of, rayjob
from trainjobs.api.job import Spec
from trainjobs.api.profile import ProfileSpec

KEY = Key("team", "job")
MINE = Endpoint("10.0.0.1", 1, 2, "u-1")


def heard(*answers: Any, endpoint: Endpoint = MINE) -> list[Object | None]:
    """What is known of a job after each of these reports."""
    given = list(answers)
    asked = Polls(lambda key: None, read=lambda address, port: given.pop(0))
    asked.follow(KEY, endpoint)
    known = []
    for _ in answers:
        asked.poll(KEY)
        known.append(asked.report(KEY))
    return known


@pytest.mark.parametrize(
    "of", [{"uid": "u-2", "attempt": 2}, {"uid": "u-1", "attempt": 1}, {"uid": "u-1", "attempt": "2"}, {"uid": "u-1"}, {}, "u-1", 7, []]
)
def test_a_report_of_another_job_or_attempt_is_dropped(of: Any) -> None:
    assert heard({"step": 5, "job": of}) == [None]
    assert heard({"step": 4, "job": {"uid": "u-1", "attempt": 2}}, {"step": 5, "job": of})[-1] == {
        "step": 4,
        "job": {"uid": "u-1", "attempt": 2},
    }


def test_a_trainer_of_before_is_believed_until_the_attempt_has_said_whose_it_is() -> None:
    mine = {"step": 2, "job": {"uid": "u-1", "attempt": 2}}
    assert heard({"step": 1}, mine, {"step": 3}) == [{"step": 1}, mine, mine]


def test_a_job_of_the_same_name_is_another_endpoint() -> None:
    asked = Polls(lambda key: None, read=lambda address, port: {"step": 5})
    asked.follow(KEY, MINE)
    asked.poll(KEY)
    asked.follow(KEY, Endpoint("10.0.0.1", 1, 2, "u-2"))
    assert asked.report(KEY) is None


def test_names_of_metrics_are_bounded_over_a_life() -> None:
    known = heard(*({"metrics": {f"m{look}-{number}": 1.0 for number in range(30)} | {"m0-0": 2.0}} for look in range(50)))
    names = {name for one in known if one for name in one["metrics"]}
    assert len(names) == NAMES
    assert known[-1] == {"metrics": {"m0-0": 2.0}}


def test_names_that_become_equal_are_one() -> None:
    given = {"loss": 1.0, "loss ": 2.0, "loss\x00": 3.0, "k" * 70: 4.0, "k" * 80: 5.0, "\x00": 6.0}
    made = report.progress({"metrics": given}, 10)["metrics"]
    assert [one["name"] for one in made] == ["k" * 63 + "…", "loss"]


@pytest.mark.parametrize("text", ["😀", "a\u0085b", "\u2028", "é", "\ufeff", 'quote " and \\ud83d\\ude00', "\U0010fffd"])
def test_a_patch_is_the_same_to_a_reader_of_json_and_of_yaml(text: str) -> None:
    import yaml

    body = {"status": {"message": text}}
    assert yaml.safe_load(as_yaml(body)) == body
    assert json.loads(as_yaml(body)) == body


# --- how often it is written


def status(step: int, running: bool = True, **more: Any) -> Object:
    wanted = [Condition("Accepted", True, "Accepted"), Condition("Running", running, "Stepping" if running else "Recovering")]
    return {
        "phase": "Running" if running else "Recovering",
        "attempts": 1,
        "progress": {"step": step},
        "conditions": settled([], wanted, 1, "2026-11-28T12:00:00Z"),
        **more,
    }


def test_what_a_pod_says_is_written_once_in_the_time_of_a_poll() -> None:
    now = [0.0]
    pace, writes, before = Pace(lambda: now[0]), 0, status(0)
    for second in range(100):
        now[0] = float(second)
        after = status(second + 1, running=bool(second % 2))
        if pace.wait(KEY, before, after) == 0:
            pace.wrote(KEY)
            before, writes = after, writes + 1
    assert writes == 100 / polls.EVERY


@pytest.mark.parametrize("more", [{"attempts": 2}, {"ended": 1}, {"phase": "Failed"}, {"phase": "Suspended"}, {"failure": {}}, {"ray": {}}])
def test_what_the_cluster_does_is_written_at_once(more: Object) -> None:
    pace = Pace(lambda: 0.0)
    pace.wrote(KEY)
    assert pace.wait(KEY, status(1), status(2)) == polls.EVERY
    assert pace.wait(KEY, status(1), status(2, **more)) == 0
    assert not said_only(status(1), status(2, **more))


# --- the line of a failure


def made(attempt: int = 1) -> Object:
    job = {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "job", "namespace": "team", "uid": "u-1"},
    }
    spec = Spec.model_validate({"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}})
    return rayjob(job, spec, ProfileSpec(), attempt, "image")


def ended(message: str, attempt: int = 1) -> Object:
    return {**made(attempt), "status": {"jobDeploymentStatus": "Failed", "message": message}}


def test_only_the_drivers_line_counts() -> None:
    word = nonce_of(made())
    own = f'gentrain-failure: {{"nonce": "{word}", "code": "GTJ0206", "what": "out of memory"}}'
    forged = 'gentrain-failure: {"nonce": "x", "code": "GTJ0111", "what": "forged"}'
    bare = 'gentrain-failure: {"code": "GTJ0111", "what": "forged"}\nGTJ0111 forged'
    assert diagnosed(ended(f"{own}\n{forged}\n{bare}"), [], None).code == "GTJ0206"
    assert diagnosed(ended(f"{forged}\n{bare}"), [], None).code == "GTJ0214"
    assert nonce_of(made(2)) != word
    assert diagnosed(ended(own, attempt=2), [], None).code == "GTJ0214"


def test_an_attempt_of_an_operator_of_before_is_read_as_it_was() -> None:
    old = ended('gentrain-failure: {"code": "GTJ0206", "what": "out of memory"}')
    del old["metadata"]["annotations"][NONCE]
    assert diagnosed(old, [], None).code == "GTJ0206"


def test_only_the_head_knows_the_nonce() -> None:
    cluster = made()["spec"]["rayClusterSpec"]
    head, worker = (one["template"]["spec"]["containers"][0]["env"] for one in (cluster["headGroupSpec"], cluster["workerGroupSpecs"][0]))
    assert {one["name"]: one["value"] for one in head}["GENTRAIN_NONCE"] == nonce_of(made())
    assert "GENTRAIN_NONCE" not in {one["name"] for one in worker}
