"""docs/benchmarks.md and docs/concepts/scale.md from the files under bench/results/."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from bench import (
    data_table,
    demo_start,
    demo_table,
    evaluation_cost,
    fine_tuning_table,
    gan_losses,
    lazy,
    lora,
    peers_table,
    probe_table,
    record_cost,
    scale_page,
)
from bench.goodput import best
from bench.gpu import CASES, PEAK
from bench.language_table import language, real_model
from bench.on_cluster import section
from bench.operator_table import operator, operator_nodes, operator_restart, operator_scale
from bench.ratios import ratio

HEAD = """# Benchmarks

Made by `make bench` from the files under `bench/results/`, which hold every single pair; do not edit. Each figure is a ratio against a
peer measured in the same run, the two taking turns, because a time alone says little on a shared machine. A ratio is the median of the
pairs' ratios; in brackets the quartiles.
"""
FAMILIES = ("gan", "vae", "diffusion", "language")


def page(results: Path) -> str:
    """The whole page; a benchmark that was never run is said to be missing."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    parts = [
        HEAD,
        *training(found),
        *peers_table.section(found.get("peers")),
        *lazy.section(found.get("lazy")),
        *lora.section(found.get("lora")),
        *language(found.get("language")),
        *real_model(found.get("smollm2")),
        *picture_scores(found.get("picture-scores")),
        *gan_losses.section(found.get("gan-losses")),
        *evaluation_cost.section(found.get("evaluation-cost")),
        *checkpoints(found.get("checkpoints")),
        *record_cost.section(found.get("record-cost")),
        *data_table.section(found.get("data")),
        *gpu(found.get("gpu")),
        *endurance(found.get("endurance")),
        *first_step(found.get("first-step")),
        *startup(found.get("startup")),
        *probe_table.section(found.get("probe")),
        *demo_table.section(found.get("demo")),
        *demo_start.section(found.get("demo-start")),
        *fine_tuning_table.section(found.get("fine-tuning")),
    ]
    parts += [*operator(found.get("operator")), *operator_restart(found.get("operator-restart"))]
    parts += [*operator_scale(found.get("operator-scale")), *operator_nodes(found.get("operator-nodes")), *section(results / "e2e")]
    parts += provenance(found)
    return "\n".join(parts).rstrip("\n") + "\n"


def training(found: dict[str, Any]) -> list[str]:
    """Ours / plain, per family."""
    lines = [
        "## The training loop against a plain torch loop",
        "",
        "`trainjobs.loop` (ZeRO stage 0, one process, one thread, fp32) against a hand-written loop of the same network, data, batch and",
        "fused AdamW (`bench/plain_loops.py`). Samples per second; a sequence of 128 tokens is one sample. Goal: at least 0.97. The second",
        "ratio is by processor time, which other processes on a shared machine disturb less.",
        "",
        "| Family | ours / plain | by processor time | ours | plain | pairs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for family in FAMILIES:
        if result := found.get(f"training-{family}"):
            pairs = result["pairs"]
            ours, plain = (median(pair[side] for pair in pairs) for side in ("ours", "plain"))
            ratios = [pair["ours"] / pair["plain"] for pair in pairs]
            processor = [pair["ours_processor"] / pair["plain_processor"] for pair in pairs]
            lines.append(f"| {family} | {ratio(ratios)} | {ratio(processor)} | {ours:.1f} | {plain:.1f} | {len(pairs)} |")
        else:
            lines.append(f"| {family} | not measured | | | | |")
    return [*lines, ""]


def picture_scores(result: dict[str, Any] | None) -> list[str]:
    """What the digits samples learn to draw, by its scores."""
    if result is None:
        return []
    lines = [
        "## Scores of pictures",
        "",
        "The digits samples, trained by one process with `evaluation.metrics: [fid, kid, is, precision, recall]` of 2,000 pictures by the",
        "features of the digits classifier (`bench/picture_scores.py`), and what an evaluation with them costs in steps of the same run.",
        "Networks after one step are as good as untrained; behind fid stands its share of theirs. Goal for GANs: below 2 %.",
        "",
        "| Sample | step | fid | of untrained | kid | is | precision | recall | an evaluation is |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, sample in result["samples"].items():
        rows = {"1": sample["untrained"], **sample["scores"]}
        cost = f"{sample['seconds']['evaluation'] / sample['seconds']['step']:.0f} steps"
        for step in ("1", *[step for step in ("400", "1000") if step in rows and name.startswith("gan")], max(rows, key=int)):
            fid, *others = (rows[step][f"{word}/digits"] for word in ("fid", "kid", "is", "precision", "recall"))
            share = f"{100 * fid / rows['1']['fid/digits']:.2f} %"
            lines.append(f"| {name} | {step} | {fid:.3g} | {share} | {' | '.join(f'{value:.3g}' for value in others)} | {cost} |")
    return [*lines, ""]


def gpu(result: dict[str, Any] | None) -> list[str]:
    """The trainer on a card, beside a plain loop on it."""
    lines = ["## On a GPU", ""]
    if result is None:
        return [*lines, "Not measured.", ""]
    peak = next((rate for card, rate in PEAK.items() if card in result["machine"]["gpu"]), None)
    lines += [
        f"One {result['machine']['gpu']}, bf16; `bench/gpu.py` says what the cases are. The plain loop has its data on the card",
        "already, and torch's autocast.",
        "",
        "| Case | ours / plain | ours, samples/s | MFU | memory, peak | pairs |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name in CASES:
        if (case := result["cases"].get(name)) is None:
            lines.append(f"| {name} | not measured | | | | |")
            continue
        pairs, ours = case["pairs"], median(pair["ours"] for pair in case["pairs"])
        used = f"{100 * ours * case['flopsPerSample'] / peak:.1f} %" if peak and "flopsPerSample" in case else ""
        ratios = [pair["ours"] / pair["plain"] for pair in pairs]
        said = ratio(ratios) if len(ratios) > 1 else f"{ratios[0]:.3f}"
        lines.append(f"| {name} | {said} | {ours:.0f} | {used} | {case['peakBytes'] / 2**30:.1f} GiB | {len(pairs)} |")
    if found := result["cases"].get("checkpoint"):
        copy = median(turn["copy"] for turn in found["rounds"])
        stalls = [turn["blocking"] / turn["copy"] for turn in found["rounds"]]
        lines += [
            "",
            f"A checkpoint of {found['bytes'] / 1e6:.0f} MB: copying it to pinned memory takes {1e3 * copy:.1f} ms",
            f"({found['bytes'] / copy / 1e9:.0f} GB/s); a save that nothing hides stalls training {ratio(stalls)} of that.",
            "Goal: at most 1.1.",
        ]
    return [*lines, *(["", f"To be known: {result['known']}."] if "known" in result else []), ""]


def checkpoints(result: dict[str, Any] | None) -> list[str]:
    """What a save costs, and what others take for the same."""
    lines = ["## What a checkpoint costs", ""]
    if result is None:
        return [*lines, "Not measured.", ""]
    (found,) = result["pairs"]
    rounds, size, every = found["rounds"], found["bytes"], found["every"]
    lines += [
        f"One rank at ZeRO stage 0 in fp32 with AdamW, {found['parameters'] / 1e6:.0f} million parameters: {size / 1e6:.0f} MB. One thread",
        "trains; uploads take the other core. `bench/checkpoints.py` says what each line is.",
        "",
        "| Figure | measured | goal |",
        "| --- | --- | --- |",
    ]
    copies = [(turn["copy"] + turn["copyAgain"]) / 2 for turn in rounds]
    blocking = [turn["blocking"] / turn["copyAgain"] for turn in rounds]
    lines.append(f"| stall of a save that nothing hides / copying the same tensors | {ratio(blocking)} | 1.1 |")
    held = [turn["held"] / (turn["plain"] / every) for turn in rounds]
    step = median(turn["plain"] for turn in rounds) / every
    lines.append(f"| stall of a save beside training / time of a step of {step:.2f} s | {ratio(held)} | 0.01 |")
    added = [turn["lazy"] / turn["plain"] for turn in rounds]
    lines.append(f"| {every} steps with a save / without | {ratio(added)} | |")
    for sink, words in (("file", "a file, synced"), ("s3", "S3: versitygw on this machine")):
        rates = [turn[sink]["raw"] / turn[sink]["upload"] for turn in rounds]
        cost = [turn[sink]["processor"] / (turn[sink]["bytes"] / 2**30) for turn in rounds]
        rate = median(size / turn[sink]["upload"] for turn in rounds) / 1e6
        lines.append(f"| rate of the upload / the sink's raw rate, {words} ({rate:.0f} MB/s) | {ratio(rates)} | 0.8 |")
        lines.append(f"| processor time of the upload, s/GiB, {words} | {ratio(cost)} | 1.0 |")
    small = found["adapters"]
    lines.append(f"| bytes of adapters on a frozen base / DeepSpeed's of the same | {small['ours'] / small['naive']:.3f} | 0.08 |")
    lines += [
        "",
        "The same model, to the same disk; how long training stands still, and until the bytes are there, in medians of seconds:",
        "",
    ]
    lines += ["| Way | stands still | done |", "| --- | --- | --- |"]
    seconds = {name: median(turn[name] for turn in rounds) for name in ("blocking", "deepspeed", "ray", "dcp", "dcpDone")}
    upload = median(turn["file"]["upload"] for turn in rounds)
    lines.append(f"| the copy alone | {median(copies):.2f} | |")
    lines.append(f"| ours, nothing hides it | {seconds['blocking']:.2f} | {seconds['blocking'] + upload:.2f} |")
    lines.append(f"| ours, beside training | {median(turn['held'] for turn in rounds):.3f} | {upload:.2f} |")
    lines.append(f"| DeepSpeed's `save_checkpoint` | {seconds['deepspeed']:.2f} | {seconds['deepspeed']:.2f}, not synced |")
    both = seconds["deepspeed"] + seconds["ray"]
    lines.append(f"| the same and Ray Train's upload of its files | {both:.2f} | {both:.2f}, not synced |")
    lines.append(f"| torch's `distributed.checkpoint.async_save` | {seconds['dcp']:.2f} | {seconds['dcpDone']:.2f} |")
    return [*lines, ""]


def first_step(result: dict[str, Any] | None) -> list[str]:
    """Ours / bare, and where our seconds go."""
    lines = [
        "## From the command to the first step",
        "",
        "`gtj run` on local Ray against `torchrun` with a bare DeepSpeed script (`bench/bare_deepspeed.py`): the same network, data, batch",
        "and ZeRO stage 2, two processes, warm caches, until the end of the first optimizer step. Goal: at most 1.3.",
        "",
    ]
    if result is None:
        return [*lines, "Not measured.", ""]
    pairs = result["pairs"]
    ours, bare = (median(pair[side] for pair in pairs) for side in ("ours", "bare"))
    lines += [
        f"Ratio {ratio([pair['ours'] / pair['bare'] for pair in pairs])}: {ours:.1f} s against {bare:.1f} s, {len(pairs)} pairs.",
        "",
        "| Our time passes | at | took |",
        "| --- | --- | --- |",
    ]
    before = 0.0
    for name in pairs[0]["timeline"]:
        at = median(pair["timeline"][name] for pair in pairs)
        lines.append(f"| {name} | {at:.2f} s | {at - before:.2f} s |")
        before = at
    return [*lines, ""]


def startup(result: dict[str, Any] | None) -> list[str]:
    """Milliseconds beyond `python -c pass`."""
    lines = ["## Start of the command line", "", "Beyond `python -c pass`, median of rounds in which the three commands take turns.", ""]
    if result is None:
        return [*lines, "Not measured.", ""]
    lines += ["| Command | beyond the interpreter | goal |", "| --- | --- | --- |"]
    for name, command, goal in (("help", "gtj --help", 150), ("validate", "gtj validate -f manifests/samples/vae-digits.yaml", 300)):
        extra = median(row[name] - row["pass"] for row in result["pairs"])
        lines.append(f"| `{command}` | {1000 * extra:.0f} ms | {goal} ms |")
    return [*lines, ""]


def endurance(result: dict[str, Any] | None) -> list[str]:
    """Goodput under fire / the optimum."""
    lines = [
        "## A run that is hit every half minute",
        "",
        "`gtj run` with two workers: kill -9 of a worker, of the driver, of everything, and a worker stopped by SIGSTOP, in turn, each",
        "half a minute after the one before, or ten seconds after the run trains again if that is later. A step takes a fixed time in",
        "which no core is busy. Goodput is the time of the steps that were gained over the time that passed; the optimum is what is left",
        "of it with these costs of a checkpoint and of a restart and these hits at the best interval (Young, Daly; `bench/goodput.py`).",
        "Goal: at least 0.95 of it. Above 1: C, the difference of two runs, was taken on a busier machine and is too high.",
        "",
    ]
    if result is None:
        return [*lines, "Not measured.", ""]
    (row,) = result["pairs"]
    optimum, interval = best(row["checkpointSeconds"], row["restartSeconds"], row["betweenHits"], row["stepSeconds"])
    hits = ", ".join(f"{count} {kind}" for kind, count in row["hits"].items())
    restarts = ", ".join(f"{kind} {seconds:.1f} s" for kind, seconds in row["restartByKind"].items())
    same = f"the same, to the last bit, in all {row['files']} files" if row["same"] else "NOT the same"
    lines += ["| Figure | measured |", "| --- | --- |"]
    lines.append(f"| hits in {row['seconds'] / 60:.1f} minutes | {sum(row['hits'].values())}: {hits} |")
    lines.append(f"| the last checkpoint, against an undisturbed run's of {row['steps']} steps | {same} |")
    lines.append(f"| goodput / optimum | {row['goodput']:.3f} / {optimum:.3f} = {row['goodput'] / optimum:.3f} |")
    lines.append(f"| M, between two hits | {row['betweenHits']:.1f} s |")
    lines.append(f"| R, from a hit to the next step | {row['restartSeconds']:.1f} s ({restarts}) |")
    lines.append(f"| C, what a checkpoint costs the training | {1000 * row['checkpointSeconds']:.0f} ms |")
    lines.append(f"| interval between checkpoints, here / best | {row['interval']:.1f} / {interval:.1f} s |")
    lines.append(f"| from a checkpoint's step to its commit | {row['commitLag']:.2f} s |")
    return [*lines, ""]


def provenance(found: dict[str, Any]) -> list[str]:
    lines = ["## Taken on", ""]
    seen: dict[str, list[str]] = {}
    for name, result in found.items():
        on = result["machine"]
        versions = ", ".join(f"{package} {number}" for package, number in result["versions"].items())
        place = f"{on['processor']}, {on['cores']} cores, {on['memoryGiB']} GiB, {on['system']}; {versions}; seed {result['seed']}"
        beside = f"; beside it ran {result['beside']}" if "beside" in result else ""
        seen.setdefault(place, []).append(f"{name} ({result['date']}, {result['commit']}{beside})")
    return [*lines, *(f"- {', '.join(names)}: {place}." for place, names in seen.items()), ""]


def pages(results: Path) -> dict[str, str]:
    """What is made of the results, by path below docs/."""
    scale = results / "scale.json"
    return {"benchmarks.md": page(results), "concepts/scale.md": scale_page.page(json.loads(scale.read_text()) if scale.exists() else None)}


def written() -> None:
    """All of them, where they belong."""
    root = Path(__file__).resolve().parent.parent
    for name, text in pages(root / "bench" / "results").items():
        (root / "docs" / name).write_text(text)
        print(f"docs/{name}")


if __name__ == "__main__":
    written()
