"""Jobs of end-to-end tests: small manifests, where they stand, and what their pods say."""

from __future__ import annotations

import copy
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.cluster import ROOT, Cluster, Done, Object
from tests.e2e.software import ENDPOINT, KEY, PROFILE, SECRET, Toolbox

SAMPLES = ROOT / "manifests" / "samples"
BUCKET, CREDENTIALS = "runs", "bucket"


def manifest(name: str, sample: str = "vae-digits", *, steps: int = 40, every: int = 10, workers: int = 2, **changes: Any) -> Object:
    """A sample, shortened, with checkpoints in the bucket. `changes` are paths below spec with `__` for dots."""
    job: Object = yaml.safe_load((SAMPLES / f"{sample}.yaml").read_text())
    job["metadata"] = {"name": name}
    spec = job["spec"]
    spec["training"]["steps"] = steps
    spec["compute"] = {"workers": workers, "gpusPerWorker": 0, "profiles": [PROFILE]}
    spec["checkpoints"] = {"uri": f"s3://{BUCKET}/{name}", "every": {"steps": every}, "keep": {"last": 2}}
    spec["evaluation"] = {**spec.get("evaluation", {}), "everySteps": steps, "samples": 4}
    spec["pod"] = {"env": environment()}
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = spec
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = copy.deepcopy(value)
    return job


def environment(secret: str = CREDENTIALS) -> list[Object]:
    """What leads the pods to the bucket: credentials from a Secret of the namespace, the rest plain."""
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    plain = {"AWS_ENDPOINT_URL": ENDPOINT, "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true"}
    return [
        *({"name": name, "secretKeyRef": {"name": secret, "key": name}} for name in names),
        *({"name": name, "value": value} for name, value in plain.items()),
    ]


def saved(told: Object) -> int:
    """The step of the newest checkpoint in a progress or a status; 0 without one."""
    return int((told.get("checkpoint") or {}).get("step") or 0)


@dataclass(frozen=True)
class Team:
    """A namespace of people who train."""

    cluster: Cluster
    namespace: str
    toolbox: Toolbox
    folder: Path

    def submit(self, job: Object, *options: str, check: bool = True) -> Done:
        """`gtj submit` of a manifest in a file."""
        path = self.folder / f"{job['metadata']['name']}.yaml"
        path.write_text(yaml.safe_dump(job))
        return self.gtj("submit", "-f", str(path), *options, check=check)

    def gtj(self, verb: str, *words: str, check: bool = True, timeout: float = 900) -> Done:
        return self.cluster.run("gtj", verb, *words, "-n", self.namespace, check=check, timeout=timeout)

    def kubectl(self, *words: str, stdin: str = "", check: bool = True, timeout: float = 900) -> Done:
        return self.cluster.kubectl("-n", self.namespace, *words, stdin=stdin, check=check, timeout=timeout)

    def job(self, name: str) -> Object:
        return self.cluster.get("gtj", name, self.namespace)

    def status(self, name: str) -> Object:
        found: Object = self.job(name).get("status") or {}
        return found

    def pods(self, name: str, kind: str = "") -> list[Object]:
        """A job's pods that are not on their way out; `kind` is head or worker."""
        labels = f"gentrain.dev/job={name}" + (f",ray.io/node-type={kind}" if kind else "")
        return [pod for pod in self.cluster.items("pods", self.namespace, labels) if not pod["metadata"].get("deletionTimestamp")]

    def progress(self, name: str) -> Object:
        """What the head pod serves, fresher than the status; empty while it serves nothing."""
        for pod in self.pods(name, "head"):
            if pod["status"].get("phase") != "Running":
                continue
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod['metadata']['name']}:8090/proxy/progress"
            told: Object = json.loads(self.cluster.kubectl("get", "--raw", path, check=False).stdout or "{}")
            return told
        return {}

    def crash(self, pod: Object) -> None:
        """SIGKILL to every process of a pod's container but the first, which ends for it: nobody in there has a moment to save anything.
        Deleting a pod, even at once, is not that: the kubelet sends SIGTERM and waits two seconds."""
        container = pod["spec"]["containers"][0]["name"]
        self.kubectl("exec", pod["metadata"]["name"], "-c", container, "--", "python", "-c", "import os; os.kill(-1, 9)", check=False)

    def secret(self, name: str, *, key: str = KEY, secret: str = SECRET) -> None:
        """Credentials of the bucket, the right ones or others."""
        values = {"AWS_ACCESS_KEY_ID": key, "AWS_SECRET_ACCESS_KEY": secret}
        place = {"name": name, "namespace": self.namespace}
        self.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": place, "stringData": values})

    def keys(self, name: str) -> list[str]:
        """What the job has put into the bucket."""
        return self.toolbox.keys(BUCKET, f"{name}/{self.job(name)['metadata']['uid']}/")

    def kept(self, name: str, file: str) -> str:
        """A file that the trainer keeps on the head, in the run's folder."""
        (head,) = (pod for pod in self.pods(name, "head") if pod["status"].get("phase") == "Running")
        path = f"/tmp/gentrain-{self.job(name)['metadata']['uid']}/{file}"
        return self.kubectl("exec", head["metadata"]["name"], "-c", "ray-head", "--", "cat", path).stdout

    def timeline(self, name: str) -> Object:
        """The trainer's own clock: seconds from the driver's start to each part's end."""
        found: Object = json.loads(self.kept(name, "timeline.json"))
        return found

    def rows(self, name: str, file: str) -> list[Object]:
        """The rows of `metrics.jsonl` or of `attempts.jsonl`."""
        return [json.loads(row) for row in self.kept(name, file).splitlines()]

    def lost(self, name: str, last: int, since: float) -> int:
        """How many steps up to `last` are made again, by the first group of workers that began after `since`; 0 if none did."""
        begun = [row["step"] for row in self.rows(name, "attempts.jsonl") if row["event"] in ("started", "resumed") and row["time"] > since]
        return max(0, last - begun[0]) if begun else 0

    def shown(self, name: str) -> str:
        """What a user sees of a job by the three commands that one asks first."""
        parts = (
            ("kubectl get gtj", self.kubectl("get", "gtj", name).stdout),
            ("kubectl describe gtj", self.kubectl("describe", "gtj", name).stdout),
            ("gtj explain", self.gtj("explain", name).stdout),
        )
        text = "".join(f"$ {command} {name}\n{said}\n" for command, said in parts)
        if folder := os.environ.get("GENTRAIN_E2E_SHOWN"):
            Path(folder).mkdir(parents=True, exist_ok=True)
            (Path(folder) / f"{name}.txt").write_text(text)
        return text

    def reach(self, name: str, step: int, seconds: float = 420) -> Object:
        """The progress of a job as soon as it has done `step` steps."""

        def there() -> Object | None:
            told = self.progress(name)
            status = self.status(name)
            assert status.get("phase") not in ("Failed", "Succeeded"), f"{name} is {status.get('phase')}: {status.get('message')}"
            return told if (told.get("step") or 0) >= step else None

        found: Object = self.cluster.until(f"step {step} of {name}", there, seconds)
        return found

    def succeed(self, name: str, timeout: str = "10m") -> Object:
        """`gtj wait`, which has to end well; the status then."""
        done = self.gtj("wait", name, "--timeout", timeout, check=False)
        assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{self.evidence(name)}"
        return self.status(name)

    def fail(self, name: str, timeout: str = "10m") -> Object:
        """`gtj wait`, which has to end with a failure; the status then."""
        done = self.gtj("wait", name, "--timeout", timeout, check=False)
        assert done.returncode not in (0, 6), f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}\n{self.evidence(name)}"
        return self.status(name)

    def evidence(self, name: str) -> str:
        """Everything a person would ask for who wants to know what happened."""
        parts = [
            self.gtj("explain", name, check=False).stdout,
            self.kubectl("describe", "gtj", name, check=False).stdout,
            self.kubectl("get", "rayjobs,rayclusters,pods", "-o", "wide", check=False).stdout,
            self.gtj("logs", name, check=False).stdout[-6000:],
        ]
        return "\n----\n".join(parts)
