"""Language models against their peers: steps against transformers' Trainer, alone and with DeepSpeed, and TRL's SFTTrainer, completions
against `generate`, tokenising against `datasets.map`, and the memory of the cross-entropy by pieces. One process, one thread.

`python -m bench.language <what> <pairs>` prints one of these as JSON; without, `measure` runs each in a process of its own. What is not
installed (trl, datasets) is not compared, and said to be missing.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock

WHAT = ("Trainer", "TrainerDeepSpeed", "SFTTrainer", "generate", "map", "memory")
NEEDS = {"SFTTrainer": ("trl", "datasets"), "map": ("datasets",)}
VOCABULARY, TOKENS, WIDTH, CHUNK = 128_000, 1024, 64, 128
ROWS = 2_000
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}


def measure(pairs: int, root: Path) -> list[dict[str, Any]]:
    """A row for each: {"what", "pairs": [{"ours", "peer", "ours_processor", "peer_processor"}]}, or {"what", "missing"}."""
    rows: list[dict[str, Any]] = []
    for what in WHAT:
        missing = [name for name in NEEDS.get(what, ()) if find_spec(name) is None]
        if missing:
            rows.append({"what": what, "missing": missing})
            continue
        command = [sys.executable, "-m", "bench.language", what, str(pairs)]
        done = subprocess.run(command, cwd=root, env=os.environ | ENVIRONMENT, check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"what": what, "pairs": json.loads(done.stdout.splitlines()[-1])})
    return rows


def steps(what: str, pairs: int) -> list[dict[str, float]]:
    """Sequences per second; bench/training.py with the peer in the place of the plain loop."""
    from bench import language_peers, plain_loops, training

    peers = {
        "Trainer": language_peers.trainer,
        "TrainerDeepSpeed": language_peers.deepspeed_trainer,
        "SFTTrainer": language_peers.sft_trainer,
    }
    with mock.patch.dict(plain_loops.LOOPS, language=peers[what]):
        found = training.measure("language", training.FAMILIES["language"], pairs)
    return [{name.replace("plain", "peer"): value for name, value in row.items()} for row in found]


def turns(ours: Callable[[], float], peer: Callable[[], float], pairs: int) -> list[dict[str, float]]:
    """Units per second of both, who take turns; each returns how many units it made."""
    found: list[dict[str, float]] = []
    for turn in range(-1, pairs):  # turn -1 warms up
        row: dict[str, float] = {}
        for name, way in (("ours", ours), ("peer", peer)) if turn % 2 else (("peer", peer), ("ours", ours)):
            wall, processor = time.perf_counter(), time.process_time()
            units = way()
            row |= {name: units / (time.perf_counter() - wall), f"{name}_processor": units / (time.process_time() - processor)}
        if turn >= 0:
            found.append(row)
    return found


def completions(pairs: int) -> list[dict[str, float]]:
    """Tokens per second, of prompts of one length, drawn to the last one."""
    import torch

    from trainjobs.api.language import Transformer
    from trainjobs.models.transformers import causal_language_model
    from trainjobs.objectives.language.drawing import complete

    count, width, length = 8, 16, 48
    asked = {"architecture": "llama", "layers": 4, "hidden": 256, "heads": 4, "contextLength": 128}
    torch.manual_seed(0)
    model: Any = causal_language_model(Transformer.model_validate(asked), 257, 256).eval()
    prompts, lengths = torch.randint(0, 256, (count, width)), torch.full((count,), width)

    def ours() -> float:
        with torch.no_grad():
            complete(model, prompts, lengths, torch.rand(count, length), (300,))  # an end that is never drawn
        return count * length

    def peer() -> float:
        with torch.no_grad():
            model.generate(prompts, do_sample=True, top_k=0, min_new_tokens=length, max_new_tokens=length, use_cache=True, pad_token_id=256)
        return count * length

    return turns(ours, peer, pairs)


def tokenising(pairs: int) -> list[dict[str, float]]:
    """Rows per second, from a JSONL file of prompts and completions to token ids with a mask of what is learned, on disk."""
    from bench.language_peers import mapped, tokenizer
    from trainjobs.api.job import Spec
    from trainjobs.data import look, open_source
    from trainjobs.data.tokens import kept

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "rows").mkdir()
        texts = [f"What is {n} plus {n + 1}, and {'why ' * (n % 40)}?" for n in range(ROWS)]
        lines = (json.dumps({"prompt": text, "completion": f" It is {2 * n + 1}. " + text * 2}) for n, text in enumerate(texts))
        (folder / "rows" / "train.jsonl").write_text("\n".join(lines) + "\n")
        network = {"contextLength": 1024}
        language = {"network": network, "tokenizer": {"type": "bpe", "vocabularySize": 1024}}
        told = {"language": language, "data": {"source": f"file://{folder / 'rows'}"}, "training": {"steps": 1}}
        spec = Spec.model_validate(told)
        first = open_source(spec, folder / "first", look(spec))
        assert first.info.tokenizer is not None
        files = kept(first.info.tokenizer)
        theirs, (trained,) = tokenizer(files, folder / "tokenizer.json"), files.values()
        number = 0

        def ours() -> float:
            nonlocal number
            number += 1
            open_source(spec, folder / f"ours-{number}", look(spec), tokenizer=trained)
            return ROWS

        def peer() -> float:
            nonlocal number
            number += 1
            mapped(theirs, folder / "rows" / "train.jsonl", folder / f"theirs-{number}")
            return ROWS

        return turns(ours, peer, pairs)


def memory(pairs: int) -> list[dict[str, float]]:
    """MiB above what the network and its gradient take, at the peak of a loss and its backward pass; each in a process of its own."""
    found = []
    for _ in range(pairs):
        row = {}
        for name, chunk in (("ours", str(CHUNK)), ("peer", "0")):
            command = [sys.executable, "-m", "bench.language", "peak", chunk]
            row[name] = float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        found.append(row)
    return found


def peak(chunk: int) -> float:
    import torch

    from trainjobs.api.language import Transformer
    from trainjobs.models.transformers import causal_language_model
    from trainjobs.objectives.language.tokens import summed_loss

    asked = {"architecture": "gpt2", "layers": 1, "hidden": WIDTH, "heads": 4, "contextLength": TOKENS}
    model = causal_language_model(Transformer.model_validate(asked), VOCABULARY, 0)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    rows: Mapping[str, Any] = {"input_ids": torch.randint(0, VOCABULARY, (1, TOKENS))}
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    summed_loss(model, rows, rows["input_ids"], 0.0, chunk or None).backward()
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    name, number = sys.argv[1], int(sys.argv[2])
    if name == "peak":
        print(peak(number))
    else:
        others = {"generate": completions, "map": tokenising, "memory": memory}
        print(json.dumps(others[name](number) if name in others else steps(name, number)))
