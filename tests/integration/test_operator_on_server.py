"""Jobs from `kubectl apply` to their end, on a real API server with KubeRay's real schema; a stand-in plays KubeRay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gentrain_operator import controller as controller_module
from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import CONFIGMAPS, JOBS, PROFILES, RAYJOBS, Object
from tests.cluster.at_work import IMAGE, Bench, report
from tests.cluster.control_plane import ControlPlane

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SAMPLES = sorted((ROOT / "manifests" / "samples").glob("*.yaml"))


def test_a_job_from_apply_to_success(bench: Bench) -> None:
    bench.apply()
    rayjob = bench.rayjob("job-a1")
    assert rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["image"] == IMAGE
    bench.phase("Provisioning")
    bench.kuberay.initialize("job-a1")
    assert len(bench.kuberay.pods("job-a1")) == 3
    bench.kuberay.run("job-a1")
    bench.driver.report = report(40, checkpoint={"uri": "s3://b/p", "step": 30})
    bench.phase("Running")
    status = bench.until(lambda: bench.status() if bench.status().get("progress", {}).get("step") == 40 else None)
    assert status["message"] == "step 40/100, loss 0.5, ETA 1m"
    assert status["checkpoint"] == {"uri": "s3://b/p", "step": 30}
    listed = bench.cluster.kubectl("-n", bench.namespace, "get", "gtj", "job").stdout.splitlines()[1].split()
    assert listed[:8] == ["job", "Running", "40%", "40/100", "0.5", "1m", "0", "0"]
    bench.kuberay.succeed("job-a1")
    bench.cluster.kubectl("-n", bench.namespace, "wait", "--for=condition=Finished", "gtj/job", "--timeout=15s")
    status = bench.status()
    assert (status["phase"], status["progress"]["percent"], status["attempts"]) == ("Succeeded", 100, 1)
    described = bench.cluster.kubectl("-n", bench.namespace, "describe", "gtj", "job").stdout
    assert "Succeeded" in described.split("Events:")[1]


def test_the_pods_read_the_frozen_job_from_a_configmap(bench: Bench) -> None:
    bench.apply(training={"steps": 7})
    template = bench.rayjob("job-a1")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    name = next(volume["configMap"]["name"] for volume in template["spec"]["volumes"] if "configMap" in volume)
    configmap = bench.client.get(CONFIGMAPS, bench.namespace, name)
    assert configmap["immutable"] is True
    frozen = json.loads(configmap["data"]["job.json"])
    assert (frozen["spec"]["training"]["steps"], frozen["spec"]["training"]["seed"]) == (7, 0)


def test_an_application_failure_is_retried_as_often_as_asked(bench: Bench) -> None:
    bench.apply(recovery={"maxRetries": 1})
    bench.kuberay.fail(bench.running(), "GTJ0207 loss/G is not finite (step 12)")
    bench.kuberay.fail(bench.running(attempt=2), 'gentrain-failure: {"code": "GTJ0206", "what": "out of memory", "rank": 1, "step": 9}')
    status = bench.phase("Failed")
    assert status["restarts"] == {"application": 1}
    assert status["failure"]["code"] == "GTJ0206"
    assert (status["failure"]["class"], status["failure"]["rank"], status["failure"]["step"]) == ("Application", 1, 9)
    assert sorted(bench.kuberay.rayjobs()) == ["job-a1", "job-a2"]


def test_infrastructure_failures_are_free(bench: Bench) -> None:
    bench.apply(recovery={"maxRetries": 0})
    bench.kuberay.lose_head(bench.running())
    bench.kuberay.stop(bench.running(attempt=2))
    bench.kuberay.delete(bench.running(attempt=3))
    bench.kuberay.succeed(bench.running(attempt=4))
    status = bench.phase("Succeeded")
    assert status["restarts"] == {"infrastructure": 2, "preemption": 1}
    assert status["attempts"] == 4


def test_the_next_attempt_waits_for_the_pods_of_the_last(bench: Bench) -> None:
    bench.apply()
    name = bench.running()
    bench.kuberay.fail(name, "Traceback", clean_up=False)
    bench.until(lambda: "3 pods" in bench.status().get("message", ""))
    assert sorted(bench.kuberay.rayjobs()) == ["job-a1"]
    bench.kuberay.clean_up(name)
    bench.rayjob("job-a2")


def test_what_kuberay_refuses_is_not_tried_again(bench: Bench) -> None:
    bench.apply()
    bench.rayjob("job-a1")
    bench.kuberay.refuse("job-a1", "rayVersion is nonsense")
    status = bench.phase("Failed")
    assert (status["failure"]["code"], status["failure"]["class"]) == ("GTJ0301", "Configuration")


def test_suspend_and_resume(bench: Bench) -> None:
    bench.apply()
    name = bench.running()
    bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": True}})
    bench.until(lambda: bench.rayjob(name)["spec"]["suspend"])
    bench.kuberay.suspend(name)
    bench.until(lambda: bench.reason("Suspended") == "Suspended")
    assert bench.status()["phase"] == "Suspended"
    bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": False}})
    bench.until(lambda: bench.rayjob(name)["spec"]["suspend"] is False)
    bench.kuberay.succeed(bench.running())
    assert bench.phase("Succeeded")["attempts"] == 1


def test_a_queued_job_leaves_suspend_to_kueue(bench: Bench) -> None:
    bench.apply(compute={"queue": "team-a", "gpusPerWorker": 0})
    rayjob = bench.rayjob("job-a1")
    assert rayjob["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team-a"
    assert rayjob["spec"]["suspend"] is True
    bench.phase("Queued")
    # No Kueue is here, or, when another test has left its definitions behind, no such queue.
    bench.until(lambda: bench.reason("QuotaReserved") in ("KueueNotInstalled", "QueueNotFound"))
    bench.client.merge(RAYJOBS, bench.namespace, "job-a1", {"spec": {"suspend": False}})
    bench.running()
    bench.until(lambda: bench.reason("QuotaReserved") == "Admitted")
    assert bench.rayjob("job-a1")["spec"]["suspend"] is False


def test_a_missing_profile_heals_by_itself(bench: Bench, request: pytest.FixtureRequest) -> None:
    name = f"pool-{bench.namespace}"
    bench.apply(compute={"profiles": [name], "gpusPerWorker": 1, "workers": 1})
    bench.until(lambda: bench.reason("Accepted") == "ProfileNotFound")
    assert bench.kuberay.rayjobs() == {}
    node = {"cpu": "96", "memory": "768Gi"}
    spec = {"accelerator": {"type": "h100", "perNode": 8}, "node": node, "selector": {"pool": "h100"}, "price": {"usdPerNodeHour": "80"}}
    profile = {"apiVersion": PROFILES.api_version, "kind": PROFILES.kind, "metadata": {"name": name}, "spec": spec}
    bench.client.create(PROFILES, None, profile)
    template = bench.rayjob("job-a1")["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert template["containers"][0]["resources"]["limits"] == {"cpu": "12", "memory": "98304Mi", "nvidia.com/gpu": "1"}
    assert template["nodeSelector"] == {"pool": "h100"}
    assert bench.phase("Provisioning")["plan"]["profile"] == name


def test_a_profile_deleted_under_a_running_job_changes_nothing(bench: Bench) -> None:
    name = f"short-{bench.namespace}"
    spec: Object = {"node": {"cpu": "4", "memory": "8Gi"}}
    created = bench.client.create(
        PROFILES, None, {"apiVersion": PROFILES.api_version, "kind": PROFILES.kind, "metadata": {"name": name}, "spec": spec}
    )
    bench.apply(compute={"profiles": [name], "gpusPerWorker": 0})
    rayjob = bench.running()
    bench.driver.report = report(10)
    bench.phase("Running")
    bench.client.delete(PROFILES, None, name, uid=created["metadata"]["uid"])
    bench.driver.report = report(20)
    bench.until(lambda: bench.status()["progress"]["step"] == 20)
    bench.kuberay.succeed(rayjob)
    bench.phase("Succeeded")


def test_somebody_elses_rayjob_is_left_alone(bench: Bench) -> None:
    theirs = {"apiVersion": RAYJOBS.api_version, "kind": RAYJOBS.kind, "metadata": {"name": "job-a1"}, "spec": {"entrypoint": "theirs"}}
    created = bench.client.create(RAYJOBS, bench.namespace, theirs)
    bench.apply()
    bench.until(lambda: bench.reason("Accepted") == "NameTaken")
    after = bench.rayjob("job-a1")
    assert (after["metadata"]["resourceVersion"], after["spec"]["entrypoint"]) == (created["metadata"]["resourceVersion"], "theirs")


def test_a_rayjob_whose_label_was_taken_away_is_still_ours(bench: Bench) -> None:
    bench.apply()
    name = bench.running()
    bench.client.merge(RAYJOBS, bench.namespace, name, {"metadata": {"labels": {"app.kubernetes.io/managed-by": None}}})
    bench.driver.report = report(10)
    bench.until(lambda: bench.status().get("progress", {}).get("step") == 10)
    assert sorted(bench.kuberay.rayjobs()) == [name]


def test_deadline_and_budget_end_a_job(bench: Bench) -> None:
    bench.apply("late", activeDeadlineSeconds=60)
    name = bench.running("late")
    status = bench.phase("Failed", "late")
    assert status["failure"]["code"] == "GTJ0212"
    bench.until(lambda: name not in bench.kuberay.rayjobs())


def test_a_finished_job_is_deleted_after_its_time(bench: Bench) -> None:
    bench.apply(ttlSecondsAfterFinished=0)
    bench.kuberay.succeed(bench.running())
    bench.until(lambda: bench.jobs() == [])


def test_an_operator_that_starts_later_goes_on(bench: Bench) -> None:
    bench.apply()
    name = bench.running()
    bench.stop()
    bench.kuberay.lose_head(name)
    bench.start()
    bench.rayjob("job-a2")
    assert bench.until(lambda: bench.status().get("attempts") == 2)
    assert bench.status()["restarts"] == {"infrastructure": 1}


@pytest.mark.parametrize("name", ["n" * 253, "with.dots." + "n" * 60, "9-starts-with-a-digit"], ids=["253", "dots", "digit"])
def test_names_that_kuberay_would_refuse(bench: Bench, name: str) -> None:
    bench.apply(name)
    (rayjob,) = bench.until(lambda: bench.kuberay.rayjobs())
    assert len(rayjob) <= 47
    bench.kuberay.initialize(rayjob)
    bench.kuberay.run(rayjob)
    bench.kuberay.succeed(rayjob)
    bench.phase("Succeeded", name)


def test_nothing_is_written_while_nothing_happens(bench: Bench) -> None:
    bench.apply()
    bench.running()
    bench.driver.report = report(10)
    bench.phase("Running")
    bench.until(lambda: bench.status().get("progress", {}).get("step") == 10)
    version = bench.job()["metadata"]["resourceVersion"]
    for _ in range(20):
        bench.operator.controller.reconcile(controller_module.Key(bench.namespace, "job"))
    assert bench.job()["metadata"]["resourceVersion"] == version


def test_a_job_deleted_at_once_leaves_nothing_running(bench: Bench) -> None:
    created = bench.apply()
    bench.client.delete(JOBS, bench.namespace, "job", uid=created["metadata"]["uid"])
    bench.apply("other")
    bench.rayjob("other-a1")
    for rayjob in bench.kuberay.rayjobs().values():
        # What was created in between belongs to the deleted job: the garbage collector takes it.
        (owner,) = rayjob["metadata"]["ownerReferences"]
        assert owner["controller"] is True


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_becomes_a_rayjob_and_succeeds(bench: Bench, sample: Path) -> None:
    bench.cluster.kubectl("-n", bench.namespace, "apply", "-f", str(sample))
    names = [one["metadata"]["name"] for one in bench.jobs()]
    assert names
    for name in names:
        bench.kuberay.succeed(bench.running(name))
        bench.phase("Succeeded", name)


def test_unknown_fields_are_refused_by_kuberays_schema(installed: ControlPlane, namespace: str) -> None:
    """The proof that the tests above prove something: the schema is enforced."""
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    body = {"apiVersion": RAYJOBS.api_version, "kind": RAYJOBS.kind, "metadata": {"name": "x"}, "spec": {"entrypont": "typo"}}
    with pytest.raises(ApiError, match="entrypont"):
        client.create(RAYJOBS, namespace, body)
