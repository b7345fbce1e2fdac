"""Jobs whose pods, processes or numbers break under them: what is lost, how long it takes, and what is said."""

from __future__ import annotations

import time

import pytest

from tests.e2e.cluster import Cluster, Object
from tests.e2e.jobs import Team, manifest, saved
from tests.e2e.sight import record
from tests.e2e.software import profile

EVERY = 50  # steps from one checkpoint to the next


def again(team: Team, name: str, before: Object, killed: float, seconds: float = 300) -> tuple[float, Object]:
    """Seconds from the kill until training makes steps once more, and the progress then, with the last step seen before as `lastSeen`."""
    last = before["step"]

    def there() -> Object | None:
        nonlocal last
        told = team.progress(name)
        restarted = told.get("restarts", 0) > before.get("restarts", 0) or told.get("startedAt") != before.get("startedAt")
        if not restarted:
            last = max(last, told.get("step") or 0)
        return told if restarted and told.get("phase") == "Running" and told.get("updatedAt", 0) > killed and told.get("step") else None

    told: Object = team.cluster.until(f"the next step of {name}", there, seconds)
    return time.time() - killed, {**told, "lastSeen": last}


def test_worker_pod_killed(team: Team) -> None:
    """Deleted at once, which still is a SIGTERM. That is no attempt: KubeRay replaces the pod, and training goes on."""
    team.submit(manifest("worker", steps=600, every=EVERY))
    before = team.reach("worker", 2 * EVERY)
    victim = team.pods("worker", "worker")[0]["metadata"]["name"]
    killed = time.time()
    team.kubectl("delete", "pod", victim, "--grace-period=0", "--force")
    seconds, after = again(team, "worker", before, killed)
    lost = team.lost("worker", after["lastSeen"], killed)
    record("worker-killed", {"seconds": round(seconds, 1), "stepsLost": lost, "every": EVERY})
    status = team.succeed("worker")
    assert (status["attempts"], status.get("restarts", {})) == (1, {})
    assert status["progress"]["step"] == 600


def test_head_pod_killed(team: Team) -> None:
    """The attempt ends, for free, and the next one goes on from the last checkpoint."""
    team.submit(manifest("head", steps=600, every=EVERY))
    before = team.reach("head", 2 * EVERY)
    (head,) = team.pods("head", "head")
    killed = time.time()
    team.kubectl("delete", "pod", head["metadata"]["name"], "--grace-period=0", "--force")
    seconds, after = again(team, "head", before, killed)
    lost = team.lost("head", after["lastSeen"], killed)
    record("head-killed", {"seconds": round(seconds, 1), "stepsLost": lost, "every": EVERY})
    status = team.succeed("head")
    assert status["attempts"] == 2
    assert status["restarts"] == {"infrastructure": 1}
    shown = team.shown("head")
    assert "GTJ0213" in shown


def test_a_rank_hangs(team: Team) -> None:
    """A worker that stands still, its process stopped as by a debugger: found within recovery.stallTimeout, and replaced."""
    team.submit(manifest("hung", steps=600, every=EVERY, recovery__stallTimeout="30s"))
    before = team.reach("hung", 2 * EVERY)
    pod = team.pods("hung", "worker")[0]["metadata"]["name"]
    stop = (
        "import os, signal, pathlib\n"
        "for path in pathlib.Path('/proc').glob('[0-9]*/cmdline'):\n"
        "    if path.read_bytes().startswith(b'ray::RayTrainWorker'):\n"
        "        os.kill(int(path.parent.name), signal.SIGSTOP); print(path.parent.name)"
    )
    stopped = time.time()
    said = team.kubectl("exec", pod, "-c", "ray-worker", "--", "python", "-c", stop).stdout
    assert said.strip(), "no process of a worker was found"
    seconds, after = again(team, "hung", before, stopped)
    record("hung-rank", {"seconds": round(seconds, 1), "stallTimeout": 30, "stepsLost": team.lost("hung", after["lastSeen"], stopped)})
    status = team.succeed("hung")
    assert status["attempts"] == 1
    logged = team.gtj("logs", "hung").stdout
    assert "GTJ0210" in logged, logged[-3000:]


def test_loss_that_is_not_finite(team: Team) -> None:
    """Rolled back and tried again; when that does not help, the job ends and says so."""
    sgd = {"default": {"name": "sgd", "learningRate": 100.0}}
    changes = {"training__optimizers": sgd, "training__schedule": {"name": "constant"}, "training__gradientClipping": 0.0}
    team.submit(manifest("nan", steps=200, every=1, recovery__maxRetries=0, **changes))
    status = team.fail("nan")
    assert status["failure"]["code"] == "GTJ0207", status["failure"]
    shown = team.shown("nan")
    assert "it went back to a checkpoint 3 times" in shown, shown


def test_out_of_memory(team: Team, cluster: Cluster) -> None:
    """Workers with too little: said so, with what they have and what would help."""
    cluster.apply(profile("tight", node={"cpu": "100m", "memory": "700Mi", "sharedMemory": "64Mi"}))
    team.submit(manifest("memory", steps=200, compute__profiles=["tight"], recovery__maxRetries=0))
    status = team.fail("memory")
    assert status["failure"]["code"] == "GTJ0205", status["failure"]
    shown = team.shown("memory")
    assert "0.68 GB" in shown, shown
    assert "1.4 GB for a start (node.memory of the ComputeProfile)" in shown, shown


@pytest.mark.root
def test_node_drained(team: Team, cluster: Cluster) -> None:
    """SIGTERM with a grace: a checkpoint is taken before the pods go, and no step is lost."""
    cluster.apply(profile("patient", gracePeriodSeconds=60))
    team.submit(manifest("drained", steps=100000, every=100000, compute__profiles=["patient"]))
    before = team.reach("drained", EVERY)
    assert saved(before) == 0
    (node,) = {pod["spec"]["nodeName"] for pod in team.pods("drained")}
    began = time.time()
    try:
        cluster.kubectl(
            *("drain", node, "--pod-selector=gentrain.dev/job=drained,ray.io/node-type=worker", "--delete-emptydir-data", "--force"),
            timeout=180,
        )
        drained = time.time() - began
    finally:
        cluster.kubectl("uncordon", node)
    seconds, after = again(team, "drained", before, began)
    lost = team.lost("drained", after["lastSeen"], began)
    steps = {"before": before["step"], "last": after["lastSeen"], "saved": saved(after), "after": after["step"]}
    record("node-drained", {"seconds": round(seconds, 1), "drain": round(drained, 1), "stepsLost": lost, "steps": steps})
    assert saved(after) >= before["step"], "no checkpoint was taken in the grace"
    assert lost == 0
