"""A stand-in for an API server on which ten thousand jobs stand: lists them page by page, keeps watches open, counts what is written.

For what the real one cannot be filled with in the time of a benchmark: RayJobs as large as they are when KubeRay and Kueue have written to
them. Each kind's pages are made before the first request, so that the time of the operator is its own.
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.operator_load import manifest
from gentrain_operator.decide import Observed, decide
from gentrain_operator.kube.apply import owner_reference
from gentrain_operator.kube.resource import JOBS, PROFILES, RAYJOBS, Object
from trainjobs.api.job import Job

RAYJOB_BYTES = 40 * 1024  # JSON, managedFields included
VERSION = "1000000"


def fields(value: Any) -> Any:
    """managedFields of a whole object: a tree of its fields' names."""
    if isinstance(value, dict):
        return {f"f:{name}": fields(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return {f"k:{json.dumps(number)}": {".": {}, **fields(inner)} for number, inner in enumerate(value) if isinstance(inner, dict)}
    return {}


def stored(resource: Any, obj: Object, number: int, size: int = 0) -> Object:
    """The object as the server hands it out, filled up to `size` bytes of JSON with another manager's fields."""
    metadata = {
        **obj["metadata"],
        "namespace": "bench",
        "uid": f"00000000-0000-4000-8000-{resource.kind == 'RayJob':d}{number:011d}",
        "resourceVersion": str(number + 1),
        "generation": 1,
        "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 600)),
    }
    one = {"manager": "gentrain-operator", "operation": "Update", "apiVersion": resource.api_version, "fieldsType": "FieldsV1"}
    whole = {**obj, "metadata": metadata}
    metadata["managedFields"] = [{**one, "fieldsV1": fields(obj)}]
    short = size - len(json.dumps(whole))
    if short > 0:
        more = {f"f:field-of-another-manager-{at}": {} for at in range(short // 40)}
        metadata["managedFields"].append({**one, "manager": "kueue", "fieldsV1": more})
    return whole


def pair(number: int, now: Any) -> tuple[Object, Object]:
    """A job and its RayJob, both as the operator leaves them: one in two has ended, the others wait for KubeRay, are starting or train."""
    written = manifest(f"job-{number}")
    spec = Job.model_validate(written).model_dump(mode="json", by_alias=True, exclude_none=True)["spec"]
    job = stored(JOBS, {**written, "spec": spec}, number)
    first = decide(Observed(job), now, "trainer:bench")
    child = first.create[1]
    metadata = {**child["metadata"], "ownerReferences": [owner_reference(job)]}
    child = {**child, "metadata": metadata}
    state = ("ended", "ended", "new", "training")[number % 4]
    report = None
    if state != "new":
        began = (now.timestamp() - 500, now.timestamp() - 100)
        start, end = (time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)) for at in began)
        cluster = {
            "state": "ready",
            "readyWorkerReplicas": 2,
            "desiredWorkerReplicas": 2,
            "head": {"podIP": "127.0.3.7", "podName": "head"},
        }
        status = {"jobId": "x", "rayClusterName": f"job-{number}-a1-x1y2z", "startTime": start, "rayClusterStatus": cluster}
        ended = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": end, "message": "Job finished successfully."}
        child["status"] = {**status, **(ended if state == "ended" else {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"})}
        report = {"step": 500, "samples": 1, "updatedAt": now.timestamp(), "metrics": {"loss": 0.5}, "etaSeconds": 4000, "stage": 1}
    job["status"] = first.status
    child = stored(RAYJOBS, child, number, RAYJOB_BYTES)
    for _ in range(3):  # until it has nothing to say any more
        job["status"] = decide(Observed(job, (child,), report=report), now, "trainer:bench").status or job["status"]
    job["metadata"]["managedFields"].append({"manager": "gentrain-operator-status", "fieldsV1": fields(job["status"])})
    return job, child


class Crowd:
    """The server, at http://127.0.0.1:`port`. `writes` by resource; of the lease, which is renewed every two seconds, apart."""

    def __init__(self, pairs: list[tuple[bytes, bytes]], page: int) -> None:
        self.writes: Counter[str] = Counter()
        self._lease: Object | None = None
        self._pages = {
            JOBS.plural: self._cut([one for one, _ in pairs], page),
            RAYJOBS.plural: self._cut([two for _, two in pairs], page),
            PROFILES.plural: self._cut([], page),
            "pods": self._cut([], page),
        }
        crowd = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                plural = url.path.rsplit("/", 1)[-1]
                if "watch" in query:
                    self._watch()
                elif plural in crowd._pages:
                    self._answer(200, crowd._pages[plural][int(query.get("continue", 0))])
                elif "/leases/" in url.path and crowd._lease:
                    self._answer(200, json.dumps(crowd._lease).encode())
                else:
                    self._answer(404, b'{"reason": "NotFound", "message": "not here"}')

            def do_POST(self) -> None:
                self._write()

            do_PUT = do_PATCH = do_DELETE = do_POST

            def _write(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"{}")
                if "/leases" in self.path:
                    version = str(int(((crowd._lease or {}).get("metadata") or {}).get("resourceVersion", 0)) + 1)
                    crowd._lease = body = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
                else:
                    crowd.writes[urlsplit(self.path).path.split("/namespaces/bench/")[-1].split("/")[0]] += 1
                self._answer(200, json.dumps(body).encode())

            def _watch(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                event = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": VERSION}}}
                while not crowd._closed.wait(30):
                    self.wfile.write(json.dumps(event).encode() + b"\n")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    @staticmethod
    def _cut(items: list[bytes], page: int) -> list[bytes]:
        pages = []
        for at in range(0, max(len(items), 1), page):
            metadata = {"resourceVersion": VERSION, **({"continue": str(at // page + 1)} if at + page < len(items) else {})}
            pages.append(b'{"metadata": ' + json.dumps(metadata).encode() + b', "items": [' + b",".join(items[at : at + page]) + b"]}")
        return pages
