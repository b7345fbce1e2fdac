"""The operator starts where ten thousand jobs stand, with RayJobs of 40 KiB: how long until it has looked at all of them, how much memory.

Against a stand-in for the API server (bench/crowd.py), in a process of its own like the operator. What the real server adds is in
operator-restart.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.crowd import Crowd, pair
from bench.operator_speed import ROOT, Operator, until
from gentrain_operator.kube.reflector import PAGE


def scale(count: int = 10_000) -> list[dict[str, Any]]:
    """One start: seconds from the process's start, bytes, writes."""
    command = [sys.executable, "-m", "bench.operator_scale", str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "operator")])}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        port, job, rayjob = json.loads(server.stdout.readline())
        try:
            row = started(port, count, environment)
        finally:
            server.stdin.close()
        return [{"jobs": count, "jobBytes": job, "rayjobBytes": rayjob, **row, "writes": json.loads(server.stdout.readline())}]


def started(port: int, count: int, environment: dict[str, str]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        cluster = {"name": "crowd", "cluster": {"server": f"http://127.0.0.1:{port}"}}
        context = {"name": "crowd", "context": {"cluster": "crowd", "user": "me"}}
        users = [{"name": "me", "user": {"token": "none"}}]
        content = {"clusters": [cluster], "contexts": [context], "users": users, "current-context": "crowd"}
        kubeconfig.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **content}))
        began = time.monotonic()
        operator = Operator(kubeconfig, Path(folder))
        try:
            until(lambda: operator.ask("/readyz") == "ok")
            synced = time.monotonic() - began
            until(lambda: operator.value("gentrain_reconcile_seconds_count") >= count and operator.value("gentrain_queue_depth") == 0)
            looked, processor = time.monotonic() - began, operator.processor()
            time.sleep(5)  # for writes that come late, and events
            memory, peak = operator.memory(), operator.memory("VmHWM")
            scraping = time.monotonic()
            operator.ask("/metrics")
            scrape = {"seconds": time.monotonic() - scraping, "memory": operator.memory(), "peak": operator.memory("VmHWM")}
        finally:
            operator.end()
    return {"synced": synced, "looked": looked, "processor": processor, "memory": memory, "peak": peak, "scrape": scrape}


def main(count: int) -> None:
    now = datetime.datetime.now(datetime.UTC)
    pairs = [tuple(json.dumps(one).encode() for one in pair(number, now)) for number in range(count)]
    crowd = Crowd(pairs, PAGE)  # type: ignore[arg-type]
    sizes = [sum(len(one[at]) for one in pairs) // count for at in (0, 1)]
    pairs.clear()
    print(json.dumps([crowd.port, *sizes]), flush=True)
    sys.stdin.read()
    crowd.close()
    print(json.dumps(dict(crowd.writes)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
