"""transformers' Trainer, TRL's SFTTrainer and `datasets`, as one would use them: the peers of bench/language.py.

They get the same network, tokens, batch, rate and optimizer (fused AdamW) as the loop that they are measured against; no logging, no
files, no evaluation.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from bench.first_step import free_port
from bench.plain_loops import WARM, Elapsed, Networks

Ended = Callable[[int], None]


def unheard(step: int) -> None:
    """Nobody counts."""


def clocked(total: int, ended: Ended) -> tuple[Any, list[Elapsed]]:
    """A callback of Trainer's, and (wall, processor) seconds when the WARM-th step and the last one have ended. `ended` is told of each."""
    from transformers import TrainerCallback

    marks: list[Elapsed] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **told: Any) -> None:
            ended(state.global_step)
            if state.global_step in (WARM, total):
                marks.append((time.perf_counter(), time.process_time()))

    return Clock(), marks


def settings(folder: str, size: int, rate: float, steps: int) -> dict[str, Any]:
    return {
        "output_dir": folder,
        "per_device_train_batch_size": size,
        "max_steps": steps,
        "learning_rate": rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "optim": "adamw_torch_fused",
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "dataloader_drop_last": True,
        "dataloader_pin_memory": False,
    }


def deepspeed_trainer(
    networks: Networks, data: Tensor, size: int, rate: float, steps: int, low: bool = False, ended: Ended = unheard
) -> Elapsed:
    """Trainer with DeepSpeed, at the stage that the loop is measured at."""
    from deepspeed import ops

    ops.__compatible_ops__["deepspeed_shm_comm"] = False  # it would compile an op for a minute: the peer shall be at its best
    own = {"zero_optimization": {"stage": 0}, "train_micro_batch_size_per_gpu": size}
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with mock.patch.dict(os.environ, alone):  # of which it takes some away
        return trainer(networks, data, size, rate, steps, low, ended, deepspeed=own)


def trainer(
    networks: Networks,
    data: Tensor,
    size: int,
    rate: float,
    steps: int,
    low: bool = False,
    ended: Ended = unheard,
    deepspeed: dict[str, Any] | None = None,
) -> Elapsed:
    from transformers import Trainer, TrainingArguments

    assert not low
    rows = [{"input_ids": row[:-1], "labels": row[:-1]} for row in data]  # it shifts labels by itself: a token less is learned
    clock, marks = clocked(steps, ended)
    with tempfile.TemporaryDirectory() as folder:
        own: Any = TrainingArguments(**settings(folder, size, rate, steps), deepspeed=deepspeed)
        found: Any = Trainer(model=networks["model"], args=own, train_dataset=rows, callbacks=[clock])
        found.train()
    return marks[1][0] - marks[0][0], marks[1][1] - marks[0][1]


def sft_trainer(networks: Networks, data: Tensor, size: int, rate: float, steps: int, low: bool = False, ended: Ended = unheard) -> Elapsed:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    assert not low
    rows = Dataset.from_dict({"input_ids": data[:, :-1].tolist()})
    clock, marks = clocked(steps, ended)
    with tempfile.TemporaryDirectory() as folder:
        theirs = tokenizer({}, Path(folder) / "tokenizer.json")
        own = SFTConfig(**settings(folder, size, rate, steps), dataset_kwargs={"skip_prepare_dataset": True}, max_length=None)
        found = SFTTrainer(model=networks["model"], args=own, train_dataset=rows, processing_class=theirs, callbacks=[clock])
        found.train()
    return marks[1][0] - marks[0][0], marks[1][1] - marks[0][1]


def tokenizer(files: Mapping[str, bytes], path: Path) -> Any:
    """transformers' own, of the files that a checkpoint keeps of one; bytes without any."""
    from transformers import PreTrainedTokenizerFast

    from trainjobs.export.huggingface import END, bytewise, text, with_end

    path.write_bytes(next(iter(files.values()), text(with_end(bytewise(), 256))))
    found: Any = PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token=END, pad_token=END)
    return found


def mapped(theirs: Any, path: Path, cache: Path) -> None:
    """Prompts and completions to token ids and a mask, as TRL does it, in batches."""
    import datasets

    datasets.disable_progress_bars()

    def encoded(rows: dict[str, list[str]]) -> dict[str, Any]:
        asked = theirs(rows["prompt"], add_special_tokens=False)["input_ids"]
        said = theirs(rows["completion"], add_special_tokens=False)["input_ids"]
        both = [one + other + [theirs.eos_token_id] for one, other in zip(asked, said, strict=True)]
        return {"input_ids": both, "mask": [[0] * len(one) + [1] * (len(whole) - len(one)) for one, whole in zip(asked, both, strict=True)]}

    found = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(cache))
    found.map(encoded, batched=True, remove_columns=["prompt", "completion"])
