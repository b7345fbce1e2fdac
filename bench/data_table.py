"""The part of docs/benchmarks.md about the input path."""

from __future__ import annotations

from statistics import median
from typing import Any

GOAL, WAIT = 1.0, 0.01
BUSY = " busy"  # behind the name of whose samples a second of a processor they are


def section(result: dict[str, Any] | None) -> list[str]:
    lines = ["## The input path", ""]
    if result is None:
        return [*lines, "Not measured.", ""]
    (row,) = result["pairs"]
    workers = row["workers"]
    lines += [
        f"{row['pictures']:,} JPEGs of 256 pixels, read at 64 in batches of 64: ours with {workers} threads, in the order of training,",
        f"against torch's `DataLoader` with {workers} processes and the same decoding; shards it reads from front to back, as `webdataset`",
        f"and streamed `datasets` do. The bucket is versitygw on this machine; all of it is fetched in each round. Goal: at least {GOAL}.",
        "Of a bucket ours checks what arrives by the MD5 that the store tells, and keeps it on disk for the epochs that follow; the",
        "`DataLoader` does neither, and begins with the first bytes of the first shards, where ours knows its order once all are indexed.",
        "By processor: the same per second that processors were busy with it, whatever else the machine did. The first epoch lists,",
        "indexes and fetches everything; the second, and all that follow, find on this machine what fits `data.cache`.",
        "",
        "| Form | first epoch, ours / DataLoader | by processor | second epoch | by processor | ours, samples/s | rounds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for key, pairs in row["rates"].items():
        for peer in (peer for peer in pairs[0] if peer not in ("ours", "second", "loader") and not peer.endswith(BUSY)):
            lines.append(f"| {key}, against `{peer}` {row['peers'][peer]} {compared(pairs, peer)}")
        lines.append(f"| {key} {compared(pairs, 'loader')}")
    if missing := [f"`{peer}`" for peer, version in row.get("peers", {}).items() if not version]:
        lines += ["", f"Not installed here, so not compared: {', '.join(missing)}."]
    lines += ["", "| Figure | measured | goal |", "| --- | --- | --- |"]
    for family, share in row["waiting"].items():
        lines.append(f"| share of a step that waits for data, {family} | {100 * share:.2f} % | {100 * WAIT:.0f} % |")
    memory, index, first = row["memory"], row["index"], row["first"]
    lines.append(f"| memory for each thread / for each process of the DataLoader | {megabytes(memory)} | |")
    if kept := row.get("keeping"):
        words = f"{kept['digest']:.2f} + {kept['file']:.2f} s of a processor"
        lines.append(f"| MD5 + a file on disk of a gigabyte that is fetched | {words} | |")
    held = " + ".join(f"{index[part] / 1e6:.0f} MB {words}" for part, words in PARTS.items())
    lines.append(f"| memory for a million samples of shards | {held} | |")
    begun = f"{first['batch']:.1f} s, of which {first['opened']:.1f} s until all are listed"
    lines.append(f"| first batch of a bucket with {first['objects']:,} objects | {begun} | |")
    for kind, rates in row["tokens"].items():
        figures = f"{rates['ours'] / 1e6:.2f} / {rates['alone'] / 1e6:.2f} = {rates['ours'] / rates['alone']:.2f}"
        lines.append(f"| million tokens/s from files to disk / `tokenizers` alone, {kind} | {figures} | |")
    return [*lines, ""]


def compared(pairs: list[dict[str, float]], peer: str) -> str:
    ratios = [
        [pair[f"{epoch}{kind}"] / pair[f"{peer}{kind}"] for pair in pairs if f"{epoch}{kind}" in pair]
        for epoch in ("ours", "second")
        for kind in ("", BUSY)
    ]
    said = " | ".join(map(spread, ratios))
    return f"| {said} | {median(pair['ours'] for pair in pairs):.0f} | {len(pairs)} |"


def spread(ratios: list[float]) -> str:
    if not ratios:
        return "not measured"
    return f"{median(ratios):.2f}" + (f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else "")


PARTS = {"records": "names and places", "rows": "sides", "order": "order"}


def megabytes(memory: dict[str, float]) -> str:
    return f"{memory['ours'] / 1e6:.0f} / {memory['loader'] / 1e6:.0f} MB"
