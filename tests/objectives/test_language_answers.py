"""Losses of answers against transformers', gradients of packed sequences against each document alone, drawing against what it draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.objectives.test_language_loss import bigram
from trainjobs.api.language import LanguageLoss, Transformer
from trainjobs.data.answers import NOT_LEARNED
from trainjobs.data.tokens import ByteTokenizer
from trainjobs.noise import Noise
from trainjobs.objectives.language.answers import AnswersObjective
from trainjobs.objectives.language.attention import behind_filling, of_documents
from trainjobs.objectives.language.drawing import complete
from trainjobs.objectives.phase import Batch

END = ByteTokenizer().end
CONTEXT = 48


def network(architecture: str) -> Any:
    from trainjobs.models.transformers import causal_language_model

    torch.manual_seed(0)
    asked = {"architecture": architecture, "layers": 2, "hidden": 32, "heads": 4, "contextLength": CONTEXT}
    made = causal_language_model(Transformer.model_validate(asked), 257, END)
    with torch.no_grad():  # an untrained network looks nowhere: attention to another document would be hidden by that
        for parameter in made.parameters():
            parameter.mul_(4 if parameter.dim() > 1 else 1)
    return made


def objective(model: Any, **loss: Any) -> AnswersObjective:
    return AnswersObjective(model, ByteTokenizer(), CONTEXT, LanguageLoss.model_validate(loss))


def documents() -> list[tuple[Tensor, Tensor]]:
    """(tokens, labels) of documents of unequal length, of which some tokens are not learned."""
    generator = torch.Generator().manual_seed(1)
    found = []
    for length in (5, 14, 9, 20):
        tokens = torch.randint(0, 256, (length + 1,), generator=generator)
        labels = tokens[1:].clone()
        labels[: length // 3] = NOT_LEARNED
        found.append((tokens[:-1], labels))
    return found


def packed(several: list[tuple[Tensor, Tensor]], filling: int = 0) -> dict[str, Tensor]:
    """One row of all of them, and tokens of no meaning behind."""
    rows = {
        "tokens": torch.cat([*(tokens for tokens, _ in several), torch.full((filling,), 7)]),
        "labels": torch.cat([*(labels for _, labels in several), torch.full((filling,), NOT_LEARNED)]),
        "positions": torch.cat([*(torch.arange(len(tokens)) for tokens, _ in several), torch.zeros(filling, dtype=torch.int64)]),
        "documents": torch.cat([*(torch.full((len(t),), n) for n, (t, _) in enumerate(several)), torch.full((filling,), -1)]),
    }
    return {name: row[None] for name, row in rows.items()}


def batch(data: dict[str, Tensor]) -> Batch:
    size = len(data["tokens"])
    return Batch(data, Noise.of(0, 0, "train", torch.arange(size)), size)


def gradient(loss: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([one.flatten() for one in torch.autograd.grad(loss, list(model.parameters()))])


def off(one: Tensor, other: Tensor) -> float:
    """Relative difference of two gradients."""
    return float((one - other).norm() / other.norm())


def alone(model: Any) -> Tensor:
    """The gradient of the mean over all learned tokens, every document by itself, by transformers' own loss."""
    count = sum(int((labels != NOT_LEARNED).sum()) for _, labels in documents())
    total = sum(
        model(input_ids=tokens[None], labels=tokens[None], shift_labels=labels[None], num_items_in_batch=count).loss
        for tokens, labels in documents()
    )
    return gradient(total, model)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_packed_gradient_is_that_of_each_document_alone(architecture: str) -> None:
    model = network(architecture)
    wanted = alone(model)
    loss, _ = objective(model).cross_entropy(batch(packed(documents())))
    assert off(gradient(loss, model), wanted) < 2e-6  # seen: 6e-7
    padded = [
        {
            name: torch.nn.functional.pad(row[0], (0, 20 - row.shape[1]), value=NOT_LEARNED if name == "labels" else 0)
            for name, row in one.items()
        }
        for one in ({"tokens": tokens[None], "labels": labels[None]} for tokens, labels in documents())
    ]
    rows = {name: torch.stack([one[name] for one in padded]) for name in padded[0]}
    assert off(gradient(objective(model).cross_entropy(batch(rows))[0], model), wanted) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_without_the_mask_of_documents_or_the_positions_the_gradient_is_another(architecture: str) -> None:
    model = network(architecture)
    wanted, data = alone(model), packed(documents())
    one_document = {**data, "documents": torch.zeros_like(data["documents"])}
    assert off(gradient(objective(model).cross_entropy(batch(one_document))[0], model), wanted) > 0.05
    if architecture == "gpt2":  # rotary positions are relative: the mask alone is enough
        going_on = {**data, "positions": torch.arange(data["tokens"].shape[1])[None]}
        assert off(gradient(objective(model).cross_entropy(batch(going_on))[0], model), wanted) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_gradient_are_transformers_by_pieces_too(architecture: str, smoothing: float) -> None:
    from transformers.trainer_pt_utils import LabelSmoother

    model = network(architecture)
    data = packed(documents(), filling=3)
    arguments = {"input_ids": data["tokens"], "position_ids": data["positions"], "attention_mask": of_documents(data["documents"])}
    theirs = LabelSmoother(epsilon=smoothing)({"logits": model(**arguments).logits}, data["labels"])
    wanted = gradient(theirs, model)
    for chunk in (None, 1, 7, 1000):
        loss, _ = objective(model, labelSmoothing=smoothing, chunk=chunk).cross_entropy(batch(data))
        assert loss.item() == pytest.approx(theirs.item(), rel=1e-6)
        assert off(gradient(loss, model), wanted) < 2e-6


@pytest.mark.slow
def test_by_pieces_tokens_that_are_not_learned_never_reach_the_last_layer() -> None:
    model = network("gpt2")
    head, seen = model.get_output_embeddings(), list[int]()
    given = head.forward
    head.forward = lambda hidden: (seen.append(hidden.shape[:-1].numel()), given(hidden))[1]
    data = packed(documents())
    count = int((data["labels"] != NOT_LEARNED).sum())
    loss, _ = objective(model, chunk=10).cross_entropy(batch(data))
    assert seen[0] == 0, "the network's own pass has no token for it"
    assert sum(seen) == count
    assert max(seen) == 10
    loss.backward()
    assert sum(seen) == 2 * count, "each piece is made again for its gradient"


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [None, 4])
def test_a_micro_batch_of_which_nothing_is_learned_has_a_loss_and_a_gradient_of_zero(chunk: int | None) -> None:
    model = network("llama")
    data = packed(documents())
    data["labels"] = torch.full_like(data["labels"], NOT_LEARNED)
    loss, _ = objective(model, chunk=chunk).cross_entropy(batch(data))
    assert loss.item() == 0
    (loss / float("inf")).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_the_stream_is_learned_whole() -> None:
    model = bigram()
    tokens = torch.randint(0, 257, (3, 9), generator=torch.Generator().manual_seed(0))
    ours = AnswersObjective(model, ByteTokenizer(), 8, LanguageLoss(label_smoothing=0.1), stream=True)
    loss, _ = ours.cross_entropy(batch({"tokens": tokens}))
    logs = model.table[tokens[:, :-1]].log_softmax(-1)
    wanted = -(0.9 * logs.gather(2, tokens[:, 1:, None])[..., 0] + 0.1 * logs.mean(-1)).mean()
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert ours.phases[0].weigh is None
    total, count = ours.heldout(batch({"tokens": tokens}))["loss"]
    assert count.item() == 24
    assert total.item() / 24 == pytest.approx(-logs.gather(2, tokens[:, 1:, None]).mean().item(), rel=1e-6)


def test_masks_by_hand() -> None:
    documents_BL = torch.tensor([[0, 0, 1, -1]])
    assert of_documents(documents_BL)[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert behind_filling(torch.tensor([1]), 3, 3)[0, 0].int().tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert behind_filling(torch.tensor([1]), 1, 4)[0, 0].int().tolist() == [[0, 1, 1, 1]]


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_completions_follow_their_own_prompt_whoever_lies_beside_it(architecture: str) -> None:
    """Drawn as transformers' own generate draws when each prompt is by itself and the likeliest token is taken."""
    model = network(architecture).eval()
    generator = torch.Generator().manual_seed(5)
    prompts = [torch.randint(0, 256, (length,), generator=generator) for length in (3, 9, 6)]
    rows = torch.stack([torch.nn.functional.pad(one, (0, 9 - len(one)), value=END) for one in prompts])
    lengths = torch.tensor([3, 9, 6])
    uniform = Noise.of(0, 0, "rollout", torch.arange(3)).uniform("tokens", 12)
    with torch.no_grad():
        cold, _ = complete(model, rows, lengths, uniform, (END,), temperature=1e-4)
        together, counts = complete(model, rows, lengths, uniform, (END,))
        for row, prompt in enumerate(prompts):
            theirs = model.generate(
                prompt[None], max_new_tokens=12, do_sample=False, pad_token_id=END, attention_mask=torch.ones(1, len(prompt))
            )
            wanted = theirs[0, len(prompt) :].tolist()
            assert cold[row].tolist()[: len(wanted)] == wanted
            by_itself, count = complete(model, rows[row : row + 1], lengths[row : row + 1], uniform[row : row + 1], (END,))
            assert torch.equal(by_itself[0], together[row])
            assert count.item() == counts[row].item()


def test_a_completion_counts_up_to_its_end_and_with_it() -> None:
    class Spelling(nn.Module):
        """Says a, b, c and then ends, over and over."""

        def forward(self, input_ids: Tensor, past_key_values: int | None = None, **_: Any) -> Any:
            from types import SimpleNamespace

            logits = torch.full((*input_ids.shape, 257), -1e9)
            after = {ord("a"): ord("b"), ord("b"): ord("c"), ord("c"): END, END: ord("a")}
            for row, column in ((r, c) for r in range(input_ids.shape[0]) for c in range(input_ids.shape[1])):
                logits[row, column, after.get(int(input_ids[row, column]), ord("a"))] = 0.0
            return SimpleNamespace(logits=logits, past_key_values=1)

    prompts = torch.tensor([[ord("x"), ord("a")], [ord("c"), END]])
    tokens, counts = complete(Spelling(), prompts, torch.tensor([2, 1]), torch.full((2, 5), 0.5), (END,))
    assert tokens.tolist() == [[ord("b"), ord("c"), END, END, END], [END] * 5]
    assert counts.tolist() == [3, 1]
    for alone in (False, True):
        tokens, counts = complete(Spelling(), prompts, torch.tensor([2, 1]), torch.full((2, 5), 0.5), (END, ord("c")), alone=alone)
        assert tokens.tolist() == [[ord("b"), ord("c"), END, END, END], [END] * 5], "of several ends the first, whichever it is"
        assert counts.tolist() == [2, 1]


def test_samples_are_told_behind_their_prompts() -> None:
    table = torch.full((257, 257), -1e9)
    for one, after in ((ord("?"), "y"), (ord("y"), END)):
        table[one, ord(after) if isinstance(after, str) else after] = 0.0

    class Speaking(nn.Module):
        def forward(self, input_ids: Tensor, **_: Any) -> Any:
            from types import SimpleNamespace

            return SimpleNamespace(logits=table[input_ids], past_key_values=1)

    data = {"prompt": torch.tensor([[END, ord("a"), ord("?")]]), "prompt_length": torch.tensor([3])}
    ours = AnswersObjective(Speaking(), ByteTokenizer(), 12, LanguageLoss())
    assert ours.sample(Batch(data, Noise.of(0, 0, "s", torch.arange(1)), 1)).texts == ("a?\n→ y",)
