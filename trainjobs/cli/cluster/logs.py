"""gtj logs of a cluster: the driver's output, from the head pod of the newest attempt, through the API server and the node's kubelet.

With `-f` it goes on until the job has ended: a stream that breaks off is opened again where it stood, and when an attempt is followed by
another, or a suspended job goes on, so does the log.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.names import ATTEMPT_LABEL
from trainjobs.api.errors import JobError, sentences
from trainjobs.cli.cluster.lines import Line, Ranks, Stitch, parsed, split
from trainjobs.cli.cluster.reasons import described
from trainjobs.cli.cluster.refusal import passing, refusal
from trainjobs.cli.cluster.server import Cluster, connect
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.view import Object, failure_error, is_true, name_of, phase, status_of, within

POLL = 2.0
PATIENCE = 300.0
SUBMITTER = "ray-job-submitter"  # KubeRay's container beside the head that prints the driver's output
TYPE = "ray.io/node-type"


@dataclass(frozen=True)
class Wanted:
    """Which lines: written at or after `since` (Unix time), of `rank`, matching `pattern`."""

    since: float | None = None
    rank: int | None = None
    pattern: re.Pattern[str] | None = None


def logs(target: Target, name: str, follow: bool, wanted: Wanted) -> None:
    """Prints. GTJ0118 when there is no such job, or nothing of it to read."""
    cluster = connect(target)
    job = cluster.job(name)
    said = followed(cluster, job, wanted) if follow else once(cluster, job, wanted)
    for line in said:
        if wanted.pattern is None or wanted.pattern.search(line):
            click.echo(line)


def once(cluster: Cluster, job: Object, wanted: Wanted) -> Iterator[str]:
    """The log as it is now; of a job whose pods are gone, the end that its failure record kept."""
    pod = head(cluster.pods(job))
    if pod is None:
        yield from remembered(cluster, job)
        return
    if not started(pod):
        # The API server would answer for a pod without a node, too: with nothing.
        raise not_yet(cluster, job, pod, f"it is {described(pod)[1]}")
    ranks = Ranks(wanted.rank)
    try:
        for line in read(cluster, pod, wanted, Stitch(), follow=False):
            yield from ranks.told(line.text)
    except ApiError as error:
        raise unreadable(error, cluster, job, pod) from error
    except TimeoutError as error:
        silent = ApiError(0, "Unreachable", "Read timed out")
        raise refusal(silent, f"read the log of pod {name_of(pod)}", cluster.where) from error
    if wanted.rank is not None and wanted.rank not in ranks.known:
        raise unknown_rank(cluster, wanted.rank, ranks)


def followed(
    cluster: Cluster, job: Object, wanted: Wanted, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
) -> Iterator[str]:
    """Lines as they come, until the job has ended and everything was read."""
    done: set[str] = set()
    said = ""
    while True:
        over = is_true(job, "Finished")
        pod = head(cluster.pods(job))
        if pod is not None and pod["metadata"]["uid"] not in done and (started(pod) or over):
            if done:
                note(f"-- attempt {pod['metadata']['labels'].get(ATTEMPT_LABEL, '?')}, pod {name_of(pod)} --")
            yield from stream(cluster, job, pod, wanted, sleep, clock)
            done.add(pod["metadata"]["uid"])
        elif not done and over:
            yield from remembered(cluster, job)
            return
        if over:
            return
        now = f"{phase(job)}: {status_of(job).get('message') or 'waiting for its pods'}"
        if (pod is None or pod["metadata"]["uid"] in done or not started(pod)) and now != said:
            note(f"{name_of(job)} is {now}")
            said = now
        sleep(POLL)
        job = cluster.job(name_of(job))


def stream(
    cluster: Cluster, job: Object, pod: Object, wanted: Wanted, sleep: Callable[[float], None], clock: Callable[[], float]
) -> Iterator[str]:
    """One pod's log to its end. What breaks off is opened again for as long as the pod is there."""
    stitch, ranks, heard, last = Stitch(), Ranks(wanted.rank), clock(), False
    while True:
        try:
            for line in read(cluster, pod, wanted, stitch, follow=True):
                heard = clock()
                yield from ranks.told(line.text)
        except TimeoutError:
            heard = clock()  # a minute without a word is no fault
        except ApiError as error:
            if error.not_found:
                return
            if not (passing(error) or waits(error)) or clock() - heard > PATIENCE:
                raise unreadable(error, cluster, job, pod) from error
        if last:
            yield from ranks.told(stitch.unfinished) if stitch.unfinished else ()
            return
        there = next((one for one in cluster.pods(job) if one["metadata"]["uid"] == pod["metadata"]["uid"]), None)
        if there is None:
            return
        # Read once more after the end is known: the stream may have broken off before it. A lost node's pod outlasts its job.
        last = ended(there) or is_true(cluster.job(name_of(job)), "Finished")
        if not last:
            sleep(POLL)


def read(cluster: Cluster, pod: Object, wanted: Wanted, stitch: Stitch, *, follow: bool) -> Iterator[Line]:
    """The lines that were not read before. ApiError, TimeoutError as Api.log."""
    query: dict[str, Any] = {"container": container(pod), "timestamps": "true"}
    query |= {"follow": "true"} if follow else {}
    since = stitch.reopened()
    if since is None and wanted.since is not None and wanted.rank is None:
        # A rank is introduced once, maybe long before: its lines are looked for from the beginning.
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(wanted.since))
    query |= {"sinceTime": since} if since else {}
    stitch.unfinished = ""
    for raw in split(cluster.api.log(cluster.namespace, name_of(pod), query)):
        line = parsed(raw.rstrip("\r\n"))
        if follow and not raw.endswith("\n"):
            # A stream that breaks off looks like one that ends.
            stitch.unfinished = line.text if line.at is not None else ""
            return
        recent = wanted.since is None or line.at is None or line.at >= wanted.since * 1e9
        if stitch.new(line) and (recent or "world_rank=" in line.text):
            yield line


def head(pods: list[dict[str, Any]]) -> dict[str, Any] | None:
    """The head pod of the newest attempt; of several, the newest."""
    heads = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(TYPE) == "head"]
    return max(heads, key=lambda pod: (number(pod), str(pod["metadata"].get("creationTimestamp"))), default=None)


def number(pod: Object) -> int:
    text = str((pod["metadata"].get("labels") or {}).get(ATTEMPT_LABEL, ""))
    return int(text) if text.isdigit() else 0


def container(pod: Object) -> str:
    """The submitter's, which prints the driver's output; without one, the first."""
    names = [str(one["name"]) for one in pod["spec"]["containers"]]
    return SUBMITTER if SUBMITTER in names else names[0]


def state(pod: Object) -> dict[str, Any]:
    """The state of the container that is read."""
    found = [one for one in (pod.get("status") or {}).get("containerStatuses") or () if one.get("name") == container(pod)]
    return dict(found[0].get("state") or {}) if found else {}


def started(pod: Object) -> bool:
    """Whether there may be a log."""
    now = state(pod)
    return (
        "running" in now
        or "terminated" in now
        or (not now and (pod.get("status") or {}).get("phase") in ("Running", "Succeeded", "Failed"))
    )


def ended(pod: Object) -> bool:
    return "terminated" in state(pod) or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def remembered(cluster: Cluster, job: Object) -> Iterator[str]:
    """What is left of a log when no head pod is."""
    status = status_of(job)
    tail, kept = str((status.get("failure") or {}).get("logTail") or ""), recorded(job)
    if tail:
        whole = f"; the whole is in its record: {kept}" if kept else ""
        note(f"the pods of {name_of(job)} are gone; this is the end of the log as its failure record has it{whole}:")
        yield from tail.splitlines()
        return
    over = is_true(job, "Finished")
    why = (
        "its pods are gone, and their logs with them"
        if over or status.get("ended")
        else f"it has no pods yet: {status.get('message') or phase(job)}"
    )
    said = status.get("failure")
    how = f"{failure_error(said).line()}" if over and said else cluster.command("explain", name_of(job))
    if kept and (over or status.get("ended")):
        how = sentences(f"its record has it: {kept}", how)
    raise JobError("GTJ0118", f"there is no log of {name_of(job)}", where=cluster.where, why=why, how=how)


def recorded(job: Object) -> str:
    """The command that reads the log from the job's record in the checkpoint store; "" where it keeps none."""
    uri = within(job, "spec", "checkpoints", "uri")
    return f"gtj logs {uri.rstrip('/')}/{job['metadata'].get('uid')}" if isinstance(uri, str) else ""


def waits(error: ApiError) -> bool:
    """Whether the container has not started yet."""
    return error.status == 400 and any(words in error.message for words in ("waiting to start", "does not have a host", "is not available"))


def unreadable(error: ApiError, cluster: Cluster, job: Object, pod: Object) -> JobError:
    """Why a log could not be had."""
    name, message = name_of(pod), " ".join(error.message.split())
    how = cluster.command("explain", name_of(job))
    if waits(error):
        return not_yet(cluster, job, pod, message)
    if error.not_found:
        return JobError("GTJ0118", f"pod {name} is gone, and its log with it", where=cluster.where, why=message, how=how)
    if error.status >= 500:
        # The API server itself was fine a moment ago: it listed the pods.
        how = f"the node is down, or the API server cannot reach it: kubectl get node {(pod.get('spec') or {}).get('nodeName', '')}".strip()
        return JobError(
            "GTJ0302", f"the node of pod {name} does not hand out its log", where=cluster.where, why=message or error.reason, how=how
        )
    return refusal(error, f"read the log of pod {name}", cluster.where)


def not_yet(cluster: Cluster, job: Object, pod: Object, why: str) -> JobError:
    """The container has not started."""
    how = f"{cluster.command('explain', name_of(job))}; or wait for it: gtj logs -f"
    return JobError("GTJ0118", f"pod {name_of(pod)} has no log yet", where=cluster.where, why=why, how=how)


def unknown_rank(cluster: Cluster, rank: int, ranks: Ranks) -> JobError:
    """Nobody was introduced as this rank in the whole log."""
    there = ", ".join(map(str, ranks.known))
    how = f"ranks in the log: {there}" if there else "workers are introduced when training starts; without --rank the whole log is shown"
    return JobError("GTJ0118", f"no rank {rank} in the log", where=cluster.where, how=how)


def note(text: str) -> None:
    click.echo(text, err=True)
