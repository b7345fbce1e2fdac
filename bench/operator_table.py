"""The part of docs/benchmarks.md about the operator."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import Any


def operator(result: dict[str, Any] | None) -> list[str]:
    """Latency, burst, memory, writes, hung endpoints."""
    lines = [
        "## The operator on a real API server",
        "",
        "etcd, kube-apiserver, the operator, the load and the watch that times them share the machine's cores. Times go from the watch",
        "event that shows the job to the one that shows its RayJob. KubeRay's own step, RayJob to RayCluster, took 53 ms (p50) at 1 job/s",
        "and 10.4 s at 50 jobs/s, 12.7 a second, on such a machine; it does not run here. Writes leave out the leader's lease, which is",
        "renewed every two seconds.",
        "",
    ]
    if result is None:
        return [*lines, "Not measured.", ""]
    (row,) = result["pairs"]
    lines += ["| Figure | measured | goal |", "| --- | --- | --- |"]
    for name, rate in (("slow", 1), ("fast", 50)):
        at = row[name]
        lines.append(f"| job to RayJob at {rate}/s, p50 / p99 of {at['count']} | {at['p50']:.0f} / {at['p99']:.0f} ms | 50 / 200 ms |")
    burst, memory, idle, life, hang = (row[name] for name in ("burst", "memory", "idle", "life", "hang"))
    lines.append(f"| burst of {burst['jobs']:,} jobs until the last RayJob stands | {burst['seconds']:.1f} s | 20 s |")
    each = memory["bytesPerJob"] * 1000 / 1e6
    lines.append(
        f"| memory per 1,000 jobs over a base of {memory['base'] / 1e6:.0f} MB, after {memory['jobs']:,} | {each:.1f} MB | 20 MB |"
    )
    parts = ", ".join(f"{count} {name}" for name, count in life["writes"].items())
    lines.append(f"| writes of a job's life with {life['reports']} reports of progress | {sum(life['writes'].values())} ({parts}) | 25 |")
    lines.append(f"| writes in {idle['seconds']} s with {idle['jobs']:,} jobs at rest | {sum(idle['writes'].values())} | 0 |")
    calm, hung = (hang[kind]["p99"] for kind in ("answering", "hanging"))
    figures = f"{hung:.0f} / {calm:.0f} ms = {hung / calm:.2f}"
    lines.append(f"| new job's p99 at 20/s, {hang['endpoints']} progress endpoints hanging / answering | {figures} | 1.2 |")
    return [*lines, ""]


def operator_restart(result: dict[str, Any] | None) -> list[str]:
    """Where ten thousand jobs stand."""
    lines = ["An operator that starts where jobs stand already:", ""]
    if result is None:
        return [*lines, "Not measured.", ""]
    (row,) = result["pairs"]
    lines += ["| Figure | measured | goal |", "| --- | --- | --- |"]
    lines.append(f"| {row['jobs']:,} jobs: from the process's start until synced | {row['synced']:.1f} s | 10 s |")
    lines.append(f"| until it has looked at each of them | {row['looked']:.1f} s | |")
    lines.append(f"| RayJobs made twice; writes | {row['duplicates']}; {sum(row['writes'].values())} | 0; 0 |")
    lines.append(f"| resident memory | {row['memoryAfter'] / 1e6:.0f} MB | |")
    return [*lines, ""]


def operator_scale(result: dict[str, Any] | None) -> list[str]:
    """Ten thousand jobs whose RayJobs are large."""
    lines = [
        "The same with larger RayJobs, where half of the jobs have ended, a quarter train and a quarter wait, against a stand-in for the",
        "API server (`bench/crowd.py`) that has nothing to do but to send. The chart's limit is 512 MiB.",
        "",
    ]
    if result is None:
        return [*lines, "Not measured.", ""]
    (row,) = result["pairs"]
    lines += ["| Figure | measured | goal |", "| --- | --- | --- |"]
    sizes = f"{row['jobBytes'] / 1024:.1f} KiB and {row['rayjobBytes'] / 1024:.0f} KiB"
    lines.append(f"| {row['jobs']:,} jobs and RayJobs of {sizes}: from the process's start until synced | {row['synced']:.1f} s | |")
    lines.append(f"| until it has looked at each of them | {row['looked']:.1f} s | 5 s |")
    lines.append(f"| of a core, until then | {row['processor']:.1f} s | |")
    lines.append(f"| writes | {sum(row['writes'].values())} | 0 |")
    lines.append(f"| resident memory; the most there was | {row['memory'] / 1e6:.0f} MB; {row['peak'] / 1e6:.0f} MB | 200 MB |")
    scrape = row["scrape"]
    lines.append(f"| the most after metrics of all jobs were read, in {scrape['seconds']:.1f} s | {scrape['peak'] / 1e6:.0f} MB | 200 MB |")
    lines.append(
        f"| processes that ran or waited for a core before, on {result['machine']['cores']} cores | {result['machine']['loadBefore']} | |"
    )
    return [*lines, ""]


def operator_nodes(result: dict[str, Any] | None) -> list[str]:
    """A thousand jobs in a cluster of many nodes, beside the same without nodes."""
    if result is None:
        return []
    without, among = result["pairs"]
    lines = [
        f"Among {among['nodes']:,} nodes of {among['nodeBytes'] / 1024:.0f} KiB, and without nodes: two clusters that take turns, in each "
        f"{among['jobs']:,} jobs with GPUs at {among['rate']:.0f}/s,",
        "every third in a queue that admits none (Kueue's definitions, no Kueue). Ratios are medians of the turns'. Where more processes",
        "wait for a core than there are cores (the last row), it is they whom latencies show: seconds of a core and memory are the "
        "operator's own.",
        "",
    ]
    lines += [f"| Figure | without nodes | {among['nodes']:,} nodes | ratio, goal |", "| --- | --- | --- | --- |"]

    def line(name: str, figure: Callable[[dict[str, Any]], str], more: str = "") -> None:
        lines.append(f"| {name} | {figure(without)} | {figure(among)} | {more} |".replace("|  |", "| |"))

    for kind, words in (("others", "that waits for nothing"), ("queued", "in the queue")):
        pairs = list(zip(among[kind]["turns"], without[kind]["turns"], strict=True))
        ratios = " / ".join(f"{median(one[cut] / other[cut] for one, other in pairs):.2f}" for cut in ("p50", "p99"))
        name = f"job {words} to RayJob, p50 / p99 of {among[kind]['count']}"
        line(name, lambda row, kind=kind: f"{row[kind]['p50']:.0f} / {row[kind]['p99']:.0f} ms", f"{ratios}; 50 / 200 ms")  # type: ignore[misc]
    line("one reconcile, mean", lambda row: f"{row['reconcile']:.1f} ms")
    line("of a core, for all of them", lambda row: f"{row['processor']:.1f} s", f"{among['processor'] / without['processor']:.2f}")
    line("lists of nodes meanwhile", lambda row: f"{row['nodeLists']:.0f}")
    line("memory that these jobs add", lambda row: f"{(row['memory']['after'] - row['memory']['base']) / 1e6:.1f} MB", "20 MB")
    line("resident memory; the most there was", lambda row: f"{row['memory']['after'] / 1e6:.0f} MB; {row['memory']['peak'] / 1e6:.0f} MB")
    seconds = among["rest"]["seconds"]
    line(f"writes; lists in {seconds} s at rest", lambda row: f"{sum(row['rest']['writes'].values())}; {row['rest']['lists']:.0f}", "0")
    line(f"of a core in {seconds} s at rest", lambda row: f"{row['rest']['processor']:.1f} s")
    machine = result["machine"]
    lines.append(f"| processes that ran or waited for a core before, on {machine['cores']} cores | {machine['loadBefore']} | | |")
    return [*lines, ""]
