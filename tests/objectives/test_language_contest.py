"""The win rate against the reference: by rewards made by hand, cut in any way, with a copy and without adapters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from tests.objectives.test_language_loss import Bigram
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.evaluate.winning import Contending, Won
from trainjobs.noise import Noise
from trainjobs.objectives.language.contest import Contest, prompts
from trainjobs.objectives.language.drawing import complete
from trainjobs.objectives.language.rewards import Rewards
from trainjobs.objectives.phase import Batch
from trainjobs.world import World

END = ByteTokenizer().end
LENGTH = 5


class Speaker(Bigram):
    """Takes what a network of transformers is told of padding, which is nothing to it."""

    def forward(self, input_ids: Tensor, past_key_values: int | None = None, use_cache: bool = False, **padding: Any) -> Any:
        return super().forward(input_ids, past_key_values, use_cache)


class Adapted(Speaker):
    """Says something else with its adapter than without."""

    def __init__(self, table: Tensor, before: Tensor) -> None:
        super().__init__(table)
        self.before = before

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        with_adapter, self.table.data = self.table.data, self.before
        yield
        self.table.data = with_adapter


def table(seed: int) -> Tensor:
    return torch.randn(257, 257, generator=torch.Generator().manual_seed(seed))


def questions(numbers: list[int]) -> Batch:
    prompt_BP = torch.tensor([[65 + number, 66, 67][: 1 + number % 3] + [END] * (2 - number % 3) for number in numbers])
    length_B = torch.tensor([1 + number % 3 for number in numbers])
    columns = torch.zeros(len(numbers), 2, dtype=torch.uint8)
    columns[:] = torch.tensor(list(b"{}"))
    data = {"prompt": prompt_BP, "prompt_length": length_B, "columns": columns}
    return Batch(data, Noise.of(0, 0, "heldout", torch.tensor(numbers)), len(numbers))


def vowels(prompts: list[str], completions: list[str], **columns: Any) -> list[float]:
    """Made by hand: how much of a text is below the 128th byte."""
    return [float(sum(ord(letter) < 80 for letter in text)) for text in completions]


def contest(model: Any, reference: Any, room: int = 3) -> Contest:
    return Contest(model, reference, ByteTokenizer(), Rewards((("vowels", 1.0, vowels),), 60.0), 1.0, LENGTH, room)


def said(model: Any, batch: Batch) -> list[str]:
    """Each row by itself."""
    found = []
    for row in range(batch.size):
        prompt, length = batch.data["prompt"][row : row + 1], batch.data["prompt_length"][row : row + 1]
        tokens, count = complete(model, prompt, length, batch.noise.uniform("tokens", LENGTH)[row : row + 1], (END,))
        found.append(ByteTokenizer().decode([token for token in tokens[0, : int(count)].tolist() if token != END]))
    return found


def by_hand(model: Any, reference: Any, batch: Batch) -> float:
    pairs = list(zip(vowels([], said(model, batch)), vowels([], said(reference, batch)), strict=True))
    assert any(one == other for one, other in pairs)
    assert any(one != other for one, other in pairs)
    return sum(1.0 if one > other else 0.5 if one == other else 0.0 for one, other in pairs)


NUMBERS = list(range(12))


def test_wins_count_one_and_ties_a_half_however_rows_are_cut() -> None:
    model, reference = Speaker(table(0)), Speaker(table(1))
    wanted = by_hand(model, reference, questions(NUMBERS))
    assert contest(model, reference).play(questions(NUMBERS)) == (wanted, 12)
    cut = [contest(model, reference).play(questions(part)) for part in (NUMBERS[:1], NUMBERS[1:6], NUMBERS[6:])]
    assert (sum(wins for wins, _ in cut), sum(count for _, count in cut)) == (wanted, 12)
    assert contest(reference, model).play(questions(NUMBERS))[0] == 12 - wanted


def test_a_model_that_is_its_reference_ties_with_itself() -> None:
    assert contest(Speaker(table(0)), Speaker(table(0))).play(questions(NUMBERS)) == (6.0, 12)


def test_without_a_copy_the_reference_is_the_model_without_its_adapter() -> None:
    adapted = Adapted(table(0), table(1))
    wanted = by_hand(Speaker(table(0)), Speaker(table(1)), questions(NUMBERS))
    assert contest(adapted, None).play(questions(NUMBERS)) == (wanted, 12)
    assert torch.equal(adapted.table, table(0)), "it has its adapter again"


def test_prompts_that_leave_no_room_are_not_counted() -> None:
    model, reference = Speaker(table(0)), Speaker(table(1))
    short = [number for number in NUMBERS if number % 3 < 2]
    wins, count = contest(model, reference, room=2).play(questions(NUMBERS))
    assert count == len(short) == 8
    assert wins == contest(model, reference).play(questions(short))[0]


def test_the_prompt_of_a_pair_is_what_stands_before_its_answer() -> None:
    tokens = torch.tensor([[[1, 2, 3, 9, 9], [1, 2, 3, 8, 8]], [[4, 7, 7, END, END], [4, 6, END, END, END]]])
    labels = torch.full((2, 2, 4), NOT_LEARNED)
    labels[0, :, 2:], labels[1, :, 0] = 9, 7
    _, length_B, columns = prompts({"tokens": tokens, "labels": labels})
    assert length_B.tolist() == [3, 1]
    assert columns == {}


@dataclass(frozen=True)
class Ranks(World):
    """A world whose other ranks have gathered this."""

    others: tuple[Any, ...] = ()

    def gather(self, value: Any) -> list[Any]:
        return [value, *self.others]


def test_the_rate_is_over_all_ranks() -> None:
    model, reference, cpu = Speaker(table(0)), Speaker(table(1)), torch.device("cpu")
    one, two = (Won(contest(model, reference)) for _ in range(2))
    assert isinstance(SimpleNamespace(contest=one.contest), Contending)
    one.add(questions(NUMBERS[:5]), None)
    two.add(questions(NUMBERS[5:]), None)
    two.alongside(questions(NUMBERS[:1]))  # which is counted elsewhere
    found = one.result(Ranks(0, 2, cpu, others=((two._wins, two._count),)))
    assert found == {"heldout/win_rate": by_hand(model, reference, questions(NUMBERS)) / 12}
    assert replace(one, _wins=0.0, _count=0).result(Ranks(0, 1, cpu)) == {}
