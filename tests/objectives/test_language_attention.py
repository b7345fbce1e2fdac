"""Masks of packed documents, as FlexAttention and a kernel of unequal lengths are told of them, against the dense one; which is chosen."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.objectives.test_language_answers import batch, documents, gradient, network, objective, off, packed
from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.models import attention
from trainjobs.models.attention import by_blocks
from trainjobs.objectives.language import attending
from trainjobs.objectives.language.attending import attended, failing, unfit
from trainjobs.objectives.language.attention import block_mask, blocks, bounds, of_documents
from trainjobs.objectives.phase import Model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def packing(seed: int, rows: int = 3, length: int = 200) -> Tensor:
    """Documents of random lengths, and filling behind them, int64 [B, L]."""
    generator = torch.Generator().manual_seed(seed)
    documents_BL = torch.full((rows, length), -1)
    for row in range(rows):
        at = number = 0
        while at < length - 20:
            size = int(torch.randint(1, 90, (), generator=generator))
            documents_BL[row, at : at + size] = number
            at, number = at + size, number + 1
    return documents_BL


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_blocks_and_bounds_say_what_the_dense_mask_says(seed: int) -> None:
    documents_BL = packing(seed)
    rows, length = documents_BL.shape
    dense = of_documents(documents_BL)
    mask = block_mask(documents_BL)
    at = torch.arange(length)
    asked = mask.mask_mod(torch.arange(rows)[:, None, None], torch.tensor(0), at[None, :, None], at[None, None, :])
    assert torch.equal(asked, dense[:, 0])
    found = bounds(documents_BL)
    ends = found["cu_seq_lens_q"]
    assert (ends.dtype, ends[0].item(), ends[-1].item()) == (torch.int32, 0, rows * length)
    assert int(ends.diff().max()) <= found["max_length_q"]
    of = torch.repeat_interleave(torch.arange(len(ends) - 1), ends.diff())
    everywhere = (of[:, None] == of[None, :]).tril()
    whole = torch.block_diag(*(row[0].int() for row in dense)).bool()
    assert torch.equal(everywhere, whole)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("keys", [4, 2])
def test_flex_attention_with_the_blocks_is_dense_attention(keys: int) -> None:
    """The forward pass, which is what torch has on a CPU."""
    documents_BL = packing(7)
    query, key, value = (torch.randn(3, heads, 200, 16, generator=torch.Generator().manual_seed(heads)) for heads in (4, keys, keys))
    wanted = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=of_documents(documents_BL), scale=0.3, enable_gqa=keys != 4
    )
    assert torch.allclose(by_blocks(query, key, value, block_mask(documents_BL), 0.3), wanted.transpose(1, 2), atol=2e-6)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_network_says_the_same_with_blocks(architecture: str) -> None:
    """Through transformers' own layers: the mask reaches the attention as it is, and the loss is that of the dense one."""
    model = network(architecture)
    data = batch(packed(documents(), filling=3))
    with torch.no_grad():
        wanted, _ = objective(model).cross_entropy(data)
        found, _ = replace(objective(model), masks=blocks).cross_entropy(data)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_bounds_reach_the_kernel_of_a_network(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel, which a CPU has not, replaced by what it computes."""

    def kernel(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, longest: int, scale: float | None) -> Tensor:
        of = torch.repeat_interleave(torch.arange(len(ends) - 1), ends.diff())
        mask = (of[:, None] == of[None, :]).tril()
        return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale).transpose(1, 2)

    monkeypatch.setattr(attention, "by_bounds", kernel)
    model = network(architecture)
    data = batch(packed(documents(), filling=3))
    wanted = gradient(objective(model).cross_entropy(data)[0], model)
    found = gradient(replace(objective(model), masks=bounds).cross_entropy(data)[0], model)
    assert off(found, wanted) < 2e-6


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: neither kernel has a backward pass on a CPU")
@pytest.mark.parametrize(("kind", "dtype"), [("flex", torch.float32), ("flex", torch.bfloat16), ("varlen", torch.bfloat16)])
@pytest.mark.parametrize("keys", [4, 2])
def test_outputs_and_gradients_are_those_of_the_dense_mask(kind: attending.Kind, dtype: torch.dtype, keys: int) -> None:
    assert failing(kind, CUDA, dtype, 4, keys, 32) == ""


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: neither kernel has a backward pass on a CPU")
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_gradient_of_a_network_is_that_of_the_dense_mask(architecture: str) -> None:
    model = network(architecture).to(CUDA)
    data = batch({name: value.to(CUDA) for name, value in packed(documents(), filling=3).items()})
    wanted = gradient(objective(model).cross_entropy(data)[0], model)
    assert off(gradient(replace(objective(model), masks=blocks).cross_entropy(data)[0], model), wanted) < 1e-2


def spec(**language: Any) -> Spec:
    asked = {"language": language, "data": {"source": "file:///data"}, "training": {"steps": 1}}
    return Spec.model_validate(asked)


def model(**changed: Any) -> Model:
    config = SimpleNamespace(_attn_implementation="causal_sdpa", num_attention_heads=4, hidden_size=64, model_type="one", **changed)
    network: Any = SimpleNamespace(config=config)
    return Model({}, objective(network))


def masks(found: Model) -> Any:
    assert isinstance(found.objective, attending.AnswersObjective)
    return found.objective.masks


def test_auto_is_dense_on_a_cpu_and_blocks_where_they_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attended(model(), spec(), CPU)[1] == "sdpa"
    monkeypatch.setattr(attending, "failing", lambda *told: "")
    found, chosen = attended(model(), spec(), CUDA)
    assert (chosen, masks(found)) == ("flex", blocks)
    assert attended(model(), spec(attention="sdpa"), CUDA)[1] == "sdpa"
    found, chosen = attended(model(), spec(attention="varlen"), CUDA)
    assert (chosen, masks(found)) == ("varlen", bounds)
    assert attended(model(attention_dropout=0.1), spec(), CUDA)[1] == "sdpa (flex: it has no dropout, and the model's is 0.1)"
    stream = replace(model(), objective=replace(objective(model().objective), stream=True))
    assert attended(stream, spec(), CUDA)[1] == ""


def test_where_it_does_not_work_auto_says_why_and_does_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attending, "failing", lambda *told: "RuntimeError: no compiler")
    found, chosen = attended(model(), spec(), CUDA)
    assert (chosen, masks(found)) == ("sdpa (flex: RuntimeError: no compiler)", attending.AnswersObjective.masks)
    with pytest.raises(JobError, match=r"GTJ0108.*attention: flex cannot be used.*no compiler.*set attention: sdpa"):
        attended(model(), spec(attention="flex"), CUDA)


@pytest.mark.parametrize(("kind", "words"), [("flex", "does not support backward on CPU"), ("varlen", "CPU")])
def test_a_cpu_is_refused_because_it_was_tried(kind: str, words: str) -> None:
    with pytest.raises(JobError, match=f"GTJ0108.*attention: {kind} cannot be used.*{words}"):
        attended(model(), spec(attention=kind), CPU)


def test_a_network_with_masks_of_its_own_is_refused_by_name() -> None:
    windowed: Any = SimpleNamespace(config=SimpleNamespace(_attn_implementation="sdpa", model_type="gemma3"))
    assert unfit(windowed).startswith("gemma3 makes its own masks")
    one = Model({}, objective(windowed))
    with pytest.raises(JobError, match=r"GTJ0108.*attention: flex cannot be used.*gemma3"):
        attended(one, spec(attention="flex"), CUDA)


def test_rows_of_one_document_are_no_matter_for_it() -> None:
    with pytest.raises(JobError, match=r"GTJ0108.*attention: flex where every row is one text.*set language.packing: bfd"):
        attended(replace(model(), objective=replace(objective(None), stream=True)), spec(attention="flex"), CUDA)
