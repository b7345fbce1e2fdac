"""Span corruption against the formulas of transformers' data collator for T5 (flax), the lengths of T5's paper, and by hand."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from trainjobs.api.errors import JobError
from trainjobs.api.language import SpanCorruption
from trainjobs.data.conversation import Turns
from trainjobs.data.encoding import Encoder
from trainjobs.data.spans import collapsed, divided, hiding, longest
from trainjobs.data.tokens import ByteTokenizer

PLAIN = SpanCorruption()
SENTINELS = np.arange(399, 299, -1)  # <extra_id_0> is the last token of the vocabulary
END = 1


def flax_lengths(inputs_length: int, noise_density: float, mean_noise_span_length: float) -> tuple[int, int]:
    """compute_input_and_target_lengths of run_t5_mlm_flax.py: (tokens_length, targets_length)."""

    def lengths(tokens_length: int) -> tuple[int, int]:
        num_noise_tokens = round(tokens_length * noise_density)
        num_noise_spans = round(num_noise_tokens / mean_noise_span_length)
        return tokens_length - num_noise_tokens + num_noise_spans + 1, num_noise_tokens + num_noise_spans + 1

    tokens_length = inputs_length
    while lengths(tokens_length + 1)[0] <= inputs_length:
        tokens_length += 1
    return tokens_length, lengths(tokens_length)[1]


def flax_ids(ids: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]) -> list[int]:
    """create_sentinel_ids and filter_input_ids of FlaxDataCollatorForT5MLM, of a row and a vocabulary of 400, END behind it."""
    start = mask.astype(np.int64) - np.roll(mask, 1) * mask
    start[0] = mask[0]
    sentinel = np.where(start != 0, np.cumsum(start), start)
    sentinel = np.where(sentinel != 0, 400 - sentinel, 0) - (mask.astype(np.int64) - start)
    full = np.where(sentinel != 0, sentinel, ids)
    return [*full[full >= 0].tolist(), END]


def mask_of(length: int, seed: int, settings: SpanCorruption = PLAIN) -> npt.NDArray[np.bool_]:
    kept, hidden = np.random.default_rng(seed).random((2, length), dtype=np.float32)
    return hiding(length, settings, kept, hidden)


@pytest.mark.parametrize(("density", "mean"), [(0.15, 3.0), (0.15, 8.0), (0.3, 3.0), (0.5, 4.0)])
@pytest.mark.parametrize("context", [32, 512])
def test_a_piece_is_as_long_as_t5_s(context: int, density: float, mean: float) -> None:
    settings = SpanCorruption(noise_density=density, mean_noise_span_length=mean)
    length, targets = flax_lengths(context, density, mean)
    if targets > context:  # neither side is longer: flax makes both 512 of a density of a half
        length -= 1
    assert longest(context, 0, settings) == length
    assert (length, targets) == (568, 114) or (context, density, mean) != (512, 0.15, 3.0), "the paper's"


@pytest.mark.parametrize("length", [2, 3, 20, 141, 568])
def test_source_and_target_are_the_collator_s(length: int) -> None:
    tokens = np.random.default_rng(0).integers(2, 290, length)
    for seed in range(20):
        gone = mask_of(length, seed)
        hidden, spans = divided(length, PLAIN)
        assert gone.sum() == hidden == min(max(round(length * 0.15), 1), length - 1)
        assert sum(now and not before for before, now in pairwise([False, *gone])) == spans == max(1, round(hidden / 3))
        assert not gone[0]
        assert gone[-1]
        source, target = ([*collapsed(tokens, side, SENTINELS).tolist(), END] for side in (gone, ~gone))
        assert source == flax_ids(tokens, gone)
        assert target == flax_ids(tokens, ~gone)
        # Whoever reads both has the text.
        parts = {number: [] for number in SENTINELS.tolist()}  # type: dict[int, list[int]]
        at = -1
        for token in target[:-1]:
            at, _ = (token, None) if token >= 300 else (at, parts[at].append(token))
        assert [one for token in source[:-1] for one in (parts[token] if token >= 300 else [token])] == tokens.tolist()


def test_every_way_to_divide_is_as_likely() -> None:
    """Of 12 tokens 6 are hidden in 2 spans: five ways for the hidden ones, five for the others."""
    settings = SpanCorruption(noise_density=0.5, mean_noise_span_length=3.0)
    found = Counter(tuple(np.flatnonzero(np.diff(mask_of(12, seed, settings))).tolist()) for seed in range(2500))
    assert len(found) == 25
    assert min(found.values()) > 60, "100 each, give or take 10"
    assert max(found.values()) < 140


def test_long_texts_are_cut_and_no_piece_is_a_single_token() -> None:
    tokenizer = ByteTokenizer()
    encoder = Encoder(tokenizer, Turns(tokenizer), room=7)
    found = [[bytes(tokens).decode() for tokens, _ in encoder.spans({"text": "abcdefghijklmnop"[:count]}, "")] for count in (16, 15, 8, 7)]
    assert found == [["abcdefg", "hijklmn", "op"], ["abcdefg", "hijklm", "no"], ["abcdef", "gh"], ["abcdefg"]]


@pytest.mark.slow
def test_a_batch_is_the_sample_s_own_and_new_at_every_step(tmp_path: Path) -> None:
    import torch

    from tests.objectives.test_language_tasks import spans
    from trainjobs.noise import Noise

    source = spans(tmp_path)
    positions = torch.arange(6)
    whole, later = (source.batch(positions, 0, Noise.of(0, step, "train.0", positions)) for step in (0, 1))
    part = source.batch(positions[4:], 0, Noise.of(0, 0, "train.0", positions[4:]))
    for name in ("source", "labels"):
        width = part[name].shape[1]
        assert torch.equal(whole[name][4:, :width], part[name]), name
        assert not torch.equal(whole[name], later[name]), name
    assert torch.equal(source.units(positions, 0), (whole["labels"] != -100).sum(1))
    assert torch.equal(source.heldout_batch(positions[:2])["labels"], source.heldout_batch(positions[:2])["labels"])


@pytest.mark.slow
def test_a_base_without_sentinels_is_refused(tmp_path: Path) -> None:
    from tests.objectives.test_language_tasks import spans

    with pytest.raises(JobError, match=r"the base has too few sentinels .* has 0 .* up to 2 spans") as error:
        spans(tmp_path, sentinels=0)
    assert error.value.code == "GTJ0109"
