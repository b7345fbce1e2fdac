"""What is said about a job on a cluster: rows, pages, exit statuses, explanations. Pure parts, no server."""

from __future__ import annotations

import json
from typing import Any

import click
import pytest

from gentrain_operator.conditions import Condition
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.profiles import chosen
from tests.cli import cluster_jobs as jobs
from tests.cli.cluster_jobs import NOW, command, condition, failed, job, pod, running, succeeded
from trainjobs.api.codes import CODES
from trainjobs.api.job import Spec
from trainjobs.cli.cluster.explain import text
from trainjobs.cli.cluster.logs import recorded
from trainjobs.cli.cluster.reasons import Explanation, Seen, explanation
from trainjobs.cli.cluster.refusal import passing, refusal
from trainjobs.cli.cluster.server import Kueue
from trainjobs.cli.cluster.view import HEADER, as_data, cells, described, ending, name_of, phase, progress_of, row
from trainjobs.cli.cluster.wait import CONDITIONS, verdict
from trainjobs.cli.line import live, plain
from trainjobs.cli.output import table

EVENT = {
    "metadata": {"creationTimestamp": "2026-11-21T10:06:00Z"},
    "type": "Warning",
    "reason": "FailedScheduling",
    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: not eligible due to preemptionPolicy=Never.",
}


def unstyled(lines: Any) -> list[str]:
    return [click.unstyle(line) for text_ in lines for line in text_.splitlines()]


# --- rows and pages


def test_rows_fit_a_terminal_of_80_columns() -> None:
    lines = unstyled(table(HEADER, [cells(one, NOW) for one in (running(), failed(), succeeded(), job())]).splitlines())
    assert max(map(len, lines)) <= 80
    assert lines[1].split() == ["faces", "gan", "Running", "25%", "250/1000", "D", "0.6123", "G", "nan", "1h12m", "6m9s"]
    assert lines[2].split()[:5] == ["faces", "gan", "Failed", "-", "-"]
    assert lines[4].split()[2] == "Pending"


def test_a_row_for_programs_survives_json() -> None:
    data = json.loads(json.dumps(row(running())))
    assert (data["step"], data["totalSteps"], data["metrics"]) == (250, 1000, {"loss/D": 0.6123, "loss/G": "nan"})
    whole = json.loads(json.dumps(as_data(running(), [EVENT])))
    assert (whole["checkpoint"]["step"], whole["events"][0]["reason"], whole["failure"]) == (200, "FailedScheduling", None)


def test_the_page_of_a_job() -> None:
    lines = unstyled(described(running(), [EVENT], NOW, 80))
    assert max(map(len, lines)) <= 80
    page = "\n".join(lines)
    for words in ("25% 250/1000  ETA 1h12m", "loss/D 0.6123  loss/G nan", "812.4 samples/s", "profile gke-l4, ZeRO stage 2"):
        assert words in page
    for words in ("restarted after failures: 1 infrastructure", "step 200, 1m ago, s3://runs/faces", "$3.41", "9s ago  FailedScheduling"):
        assert words in page


def test_what_was_planned_is_beside_what_was_measured_and_a_miss_is_told() -> None:
    one = running()
    one["status"]["plan"] |= {
        "predicted": {"memoryBytes": 2**30, "stepSeconds": "0.1 to 0.2", "usd": "1.00 to 4.00"},
        "measured": {"stepSeconds": "0.5"},
        "missed": "time 100 to 200 ms a step foreseen, 500 ms measured: above the range",
    }
    lines = unstyled(described(one, [], NOW, 80))
    assert max(map(len, lines)) <= 80
    assert "  planned    memory 1 GiB" in lines
    assert "  planned    a step 0.1 to 0.2 s, 0.5 s measured" in lines
    assert "  planned    cost $1.00 to 4.00, of the training alone" in lines
    at = next(number for number, line in enumerate(lines) if line.startswith("  missed     time 100 to 200 ms"))
    assert lines[at + 1].strip().endswith("range"), "in two lines"


def test_the_page_of_a_failed_job_ends_with_its_error() -> None:
    lines = unstyled(described(failed(), [], NOW, 80))
    assert lines[-3:] == ["GTJ0206 out of device memory", "  where: rank 3, step 12", "  why:   78 GiB of 80"]


@pytest.mark.parametrize(
    "status", [None, {}, {"phase": "Running"}, {"phase": "Succeeded", "progress": {}}, {"failure": {"code": "GTJ9999"}}]
)
def test_a_status_of_another_version_is_shown_as_far_as_it_goes(status: Any) -> None:
    one = {**job(), "status": status}
    assert list(described(one, [], NOW, 80))
    assert cells(one, NOW)
    assert json.dumps(as_data(one, []))
    assert explanation(Seen(one, NOW, command)).what


def test_the_live_line_is_that_of_a_local_run() -> None:
    assert plain("faces", progress_of(running()), elapsed=5) == "faces: 25% 250/1000, loss D 0.6123 G nan, 812.4 samples/s, ETA 1h12m"
    waiting = progress_of(job("Provisioning", message="0 of 2 workers are ready"))
    assert plain("faces", waiting, elapsed=5) == "faces: provisioning: 0 of 2 workers are ready (5s)"
    assert len(live("faces", waiting, width=30, tick=0, elapsed=5)) <= 30
    assert ending(succeeded()).endswith("faces: step 1000/1000, 2m5s")


# --- exit statuses


@pytest.mark.parametrize("code", [*CODES, "GTJ9999"])
def test_a_failed_job_ends_the_waiting_with_its_own_status(code: str) -> None:
    assert verdict(failed(code), "Finished") == (CODES[code].exit_code if code in CODES else 5)


def test_verdicts() -> None:
    assert verdict(succeeded(), "Finished") == 0
    assert [verdict(running(), wanted) for wanted in ("Finished", "Running", "CheckpointReady", "Suspended")] == [None, 0, 0, None]
    assert [verdict(succeeded(), wanted) for wanted in CONDITIONS] == [0, 0, 0, 0, 0, 5, 0, 5, 0]
    assert [verdict(failed(), wanted) for wanted in ("Failed", "Running", "Complete")] == [0, 5, 5]
    assert verdict(job(), "Accepted") is None


def test_what_the_operator_said_about_an_older_spec_does_not_count() -> None:
    stopped = job("Suspended", condition("Suspended", True, "Suspended"))
    assert verdict(stopped, "Suspended") == 0
    stopped["metadata"]["generation"] = 3
    assert verdict(stopped, "Suspended") is None
    # What is over is over: the operator writes no more about it.
    ended = succeeded()
    ended["metadata"]["generation"] = 3
    assert verdict(ended, "Finished") == 0


# --- explanations


def told(one: dict[str, Any], **more: Any) -> Explanation:
    found = explanation(Seen(one, NOW, command, **more))
    lines = unstyled(text(name_of(one), phase(one), found, 80))
    commands = {f"  {'next' if number == 0 else '':<6}{line}" for number, line in enumerate(found.next)}
    assert [line for line in lines if len(line) > 80 and line not in commands] == []
    return found


UNSCHEDULABLE = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]
}
BACKOFF = {"containerStatuses": [{"name": "ray-head", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}]}
SECRET = {"containerStatuses": [{"name": "ray-head", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no s"}}}]}
QUOTA = {"metadata": {"name": "faces-a1"}, "status": {"message": 'pods "x" is forbidden: exceeded quota: gpus'}}
PROVISIONING = job("Provisioning", condition("Accepted", True, "Accepted"), ray={"rayJob": "faces-a1"})
QUEUED = job("Queued", condition("QuotaReserved", False, "WaitingForQuota", "queue q"), spec={"compute": {"queue": "q"}})
WORKLOAD = {
    "metadata": {"name": "rayjob-faces"},
    "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient quota"}]},
}


@pytest.mark.parametrize(
    ("pods", "rayjob", "code", "words"),
    [
        ([pod(**UNSCHEDULABLE)], None, "GTJ0202", "its pods fit no node"),
        ([pod(phase="Pending", **BACKOFF)], None, "GTJ0204", "its image cannot be pulled"),
        ([pod(**SECRET)], None, "GTJ0111", "wait for a secret"),
        ([], QUOTA, "GTJ0203", "quota keeps its pods"),
    ],
)
def test_pods_that_do_not_come_up(pods: list[dict[str, Any]], rayjob: dict[str, Any] | None, code: str, words: str) -> None:
    found = told(PROVISIONING, pods=pods, rayjob=rayjob, events=[{**EVENT, "involvedObject": {"kind": "Pod"}}])
    assert (found.code, found.fault) == (code, True)
    assert words in found.what
    assert any("Insufficient nvidia.com/gpu" in why for why in found.why)
    assert found.do
    assert found.next[0].startswith("kubectl describe pod faces-a1-head" if pods else "kubectl get events")


def test_pods_of_the_last_attempt_explain_nothing_about_this_one() -> None:
    old = pod(**UNSCHEDULABLE)
    old["metadata"]["labels"]["gentrain.dev/attempt"] = "0"
    assert told(PROVISIONING, pods=[old]).fault is False


@pytest.mark.parametrize(
    ("kueue", "words", "fault"),
    [
        (Kueue(False, None, None), "this cluster has no Kueue", True),
        (Kueue(True, False, None), "no LocalQueue of that name", True),
        (Kueue(True, True, WORKLOAD), "waits for quota in queue q", False),
        (Kueue(None, None, None), "waits for quota in queue q", False),
    ],
)
def test_a_queued_job(kueue: Kueue, words: str, fault: bool) -> None:
    found = told(QUEUED, kueue=kueue)
    assert words in found.what
    assert found.fault is fault
    assert ("Pending: insufficient quota" in found.why) is (kueue.workload is not None)


def test_a_missing_profile_names_those_that_exist() -> None:
    one = job(
        "Pending",
        condition("Accepted", False, "ProfileNotFound", "GTJ0111 there is no ComputeProfile gke-14"),
        spec={"compute": {"profiles": ["gke-14"]}},
    )
    found = told(one, profiles=["gke-cpu", "gke-l4"])
    assert (found.code, found.fault) == ("GTJ0111", True)
    assert "profiles of this cluster: gke-cpu and gke-l4" in found.why[1]
    assert 'did you mean "gke-' in found.why[1]
    assert "no profiles at all" in told(one, profiles=[]).why[1]
    assert told(one, profiles=None).code == "GTJ0111"
    assert told(one, profiles=["gke-cpu"]).do[0].startswith("create the profile")
    assert told(one, profiles=["gke-14"]).do[0].startswith("mend the profile")  # it is there, and unusable


def test_a_worker_that_fits_no_profile_is_told_both_numbers() -> None:
    spec = Spec.model_validate(
        {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}, "compute": {"profiles": ["l4"], "gpusPerWorker": 8}}
    )
    refused = chosen(spec, {"l4": {"spec": {"accelerator": {"perNode": 4}}}}, {}, NOW)
    assert isinstance(refused, Condition)
    found = told(job("Pending", condition(refused.type, refused.status, refused.reason, refused.message)))
    assert (found.what, found.code, found.fault) == ("it fits none of its profiles", "GTJ0108", True)
    assert "wants 8 GPUs" in found.why[0]
    assert "has 4" in found.why[0]
    assert found.do


@pytest.mark.parametrize(
    ("one", "more", "words"),
    [
        (job(), {}, "no operator has looked at it since it was created 6m9s ago"),
        ({**job(), "metadata": {**job()["metadata"], "creationTimestamp": "2026-11-21T10:06:00Z"}}, {}, "created 9s ago"),
        ({**running(), "metadata": {**running()["metadata"], "deletionTimestamp": "2026-11-21T10:06:00Z"}}, {}, "it is being deleted"),
        (job("Pending", condition("Accepted", False, "NameTaken", "RayJob faces-a1 is not ours")), {}, "somebody else's RayJob"),
        (job("Suspended", condition("Suspended", True, "Suspended"), spec={"suspend": True}), {}, "it is suspended"),
        (job("Recovering", spec={}, ended=1, retryAt="2026-11-21T10:06:49Z"), {}, "attempt 1 ended, and attempt 2 starts in 40s"),
        (PROVISIONING, {"rayjob": {"metadata": {"creationTimestamp": jobs.CREATED}}}, "KubeRay has not looked at RayJob faces-a1"),
        (PROVISIONING, {"pods": [pod(), pod("faces-a1-worker-0", "Running")]}, "coming up: 1 of 2 run"),
        (job("Starting", condition("Running", False, "Starting")), {}, "the first step has not been made"),
        (job("Running", condition("Running", False, "Stalled", "GTJ0210 no step for 40m")), {}, "stopped making steps"),
        (job("Running", condition("ResourcesReady", False, "ScalingUp", "1 of 2 workers are ready")), {}, "it has lost workers"),
        (running(), {}, "nothing is wrong: it trains"),
        (succeeded(), {}, "100% 1000/1000 steps"),
        (failed(), {}, "out of device memory (Application failure, attempt 1)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_state_has_an_explanation(one: dict[str, Any], more: dict[str, Any], words: str) -> None:
    found = told(one, **more)
    assert words in found.what
    assert found.next or "deleted" in words


def test_a_failure_is_explained_with_its_evidence_and_its_remedy() -> None:
    found = told(failed(logTail="one\ntwo\nCUDA out of memory"))
    assert found.why == ("78 GiB of 80", "rank 3, step 12", "it saved no checkpoint", "log: one", "log: two", "log: CUDA out of memory")
    assert "`training.batch.micro`" in " ".join(found.do)
    assert found.next == ("gtj explain GTJ0206",)
    assert told(failed(resolution="use 8")).do == ("use 8",)


def test_a_traceback_that_ends_with_what_is_already_said_is_left_out() -> None:
    traceback = 'Traceback:\n  File "launch.py", line 1\ntrainjobs.api.errors.JobError: GTJ0206 out of device memory: 78 GiB of 80'
    assert told(failed(logTail=traceback)).why == ("78 GiB of 80", "rank 3, step 12", "it saved no checkpoint")


# --- refusals


@pytest.mark.parametrize(
    ("status", "message", "code", "words"),
    [
        (0, "MaxRetryError: [Errno 111] Connection refused", "GTJ0302", "nothing listens there"),
        (0, "ReadTimeoutError: Read timed out. (read timeout=30)", "GTJ0302", "no answer in time"),
        (0, "SSLError: [SSL: CERTIFICATE_VERIFY_FAILED]", "GTJ0302", "certificate"),
        (0, "something new", "GTJ0302", "something new"),
        (401, "Unauthorized", "GTJ0303", "log in again"),
        (403, 'User "eve" cannot create resource', "GTJ0303", "gentrain-editor"),
        (403, "is forbidden: exceeded quota: jobs, requested: count/x=1", "GTJ0203", "resourcequota"),
        (404, "", "GTJ0304", "helm install"),
        (404, 'namespaces "x" not found', "GTJ0303", "create namespace"),
        (422, "ValidatingAdmissionPolicy 'p' denied request: no", "GTJ0303", "policy"),
        (400, 'strict decoding error: unknown field "spec.new"', "GTJ0301", "spec.new"),
        (429, "too many requests", "GTJ0302", "busy"),
        (500, "etcdserver: request timed out", "GTJ0302", "the server failed"),
    ],
)
def test_every_refusal_says_what_where_why_and_how(status: int, message: str, code: str, words: str) -> None:
    error = refusal(ApiError(status, "Reason", message), "create job x", "context c, https://c, as eve")
    assert error.code == code
    assert error.what.startswith("cannot create job x: ")
    assert "as eve" in error.where
    assert error.how
    assert words in error.line()


def test_only_what_may_pass_is_waited_for() -> None:
    assert [passing(ApiError(status, "", "")) for status in (0, 429, 500, 503, 400, 401, 403, 404, 409, 422)] == [True] * 4 + [False] * 6


@pytest.mark.parametrize("spec", [{"training": 5, "vae": {}}, {"training": {"steps": 3}}, 7, None])
def test_a_job_of_another_definition_is_a_row_like_any(spec: Any) -> None:
    job = {"metadata": {"name": "strange", "namespace": "n", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec}
    assert row(job)["name"] == "strange"
    assert row(job)["totalSteps"] == (3 if spec == {"training": {"steps": 3}} else None)
    assert cells(job, NOW)[0] == "strange"


def test_of_pods_that_are_gone_the_record_has_the_log() -> None:
    one = {**job(), "spec": {"checkpoints": {"uri": "s3://bucket/runs/"}}}
    assert recorded(one) == f"gtj logs s3://bucket/runs/{one['metadata'].get('uid')}"
    assert recorded({**one, "spec": {}}) == ""
