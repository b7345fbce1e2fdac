"""The section of docs/benchmarks.md about language models against their peers."""

from __future__ import annotations

from statistics import median
from typing import Any

from bench.ratios import ratio

ROWS = {
    "Trainer": ("training, sequences a second", "transformers' `Trainer`"),
    "SFTTrainer": ("training, sequences a second", "TRL's `SFTTrainer`"),
    "generate": ("drawing completions, tokens a second", "transformers' `generate`"),
    "map": ("records to token ids, rows a second", "`datasets.map`, in batches"),
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
