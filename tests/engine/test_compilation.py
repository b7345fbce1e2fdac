"""Blocks that are compiled compute what they computed, once for all of a kind; and what cannot be compiled is said before training."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.api.language import Transformer
from trainjobs.api.vae import VaeNetwork
from trainjobs.engine.compilation import blocks, compile_blocks, compiled, failing
from trainjobs.models.dit import DiT
from trainjobs.models.recomputing import recompute
from trainjobs.models.transformers import causal_language_model
from trainjobs.models.unet import UNet
from trainjobs.noise import Noise
from trainjobs.objectives.dropout import masks

ROWS = 4
Made = tuple[nn.Module, Callable[[nn.Module], Tensor]]


def unet() -> Made:
    network = UNet(image_channels=1, channels=8, multipliers=[1], blocks=1, attention=True)
    return network, lambda made: made(torch.linspace(-1, 1, 64 * ROWS).view(ROWS, 1, 8, 8), torch.arange(ROWS))


def dit() -> Made:
    network = DiT(image_channels=1, size=8, hidden=16, layers=3, heads=2, patch=2)
    return network, lambda made: made(torch.linspace(-1, 1, 64 * ROWS).view(ROWS, 1, 8, 8), torch.arange(ROWS))


def kl() -> Made:
    from trainjobs.models.autoencoder_kl import Autoencoder

    given = {"architecture": "autoencoder-kl", "channels": 4, "multipliers": [1], "blocks": 1, "latentChannels": 2, "groups": 2}
    network = Autoencoder(VaeNetwork.model_validate(given), channels=1, size=8)
    pictures, noise = torch.linspace(-1, 1, 64 * ROWS).view(ROWS, 1, 8, 8), torch.linspace(-1, 1, 128 * ROWS).view(ROWS, 128)
    return network, lambda made: torch.cat([part.flatten() for part in made(noise, pictures)])


def language(architecture: str, dropout: float = 0.0, layers: int = 3) -> Made:
    settings = Transformer.model_validate(
        {"architecture": architecture, "layers": layers, "hidden": 16, "heads": 2, "contextLength": 8, "dropout": dropout}
    )
    return causal_language_model(settings, 50, 49), lambda made: made(input_ids=torch.arange(8 * ROWS).view(ROWS, 8)).logits


class Beside(nn.Module):
    """Two ways side by side, which both drop: neither waits for the other."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.drop = nn.Linear(16, 16), nn.Linear(16, 16), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.one(x)) + self.drop(self.other(x)).tanh()  # type: ignore[no-any-return]


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Beside() for _ in range(3)])

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def adapted() -> Made:
    from peft import LoraConfig, get_peft_model

    network, use = language("gpt2")
    settings = LoraConfig(r=2, target_modules=["c_attn"], lora_dropout=0.2, init_lora_weights="gaussian")
    return get_peft_model(network, settings), use


def beside() -> Made:
    return Stack(), lambda made: made(torch.linspace(-1, 1, 16 * ROWS, requires_grad=True).view(ROWS, 16))


MADE: dict[str, Callable[[], Made]] = {
    "gpt2": lambda: language("gpt2", dropout=0.2),
    "lora": adapted,
    "llama": lambda: language("llama"),
    "beside": beside,
    "dit": dit,
    "unet": unet,
    "kl": kl,
}

ALIKE = ("gpt2", "llama", "beside", "dit")  # all their layers are one program


@pytest.fixture(autouse=True)
def anew() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def gradients(network: nn.Module, use: Callable[[nn.Module], Tensor], steps: int = 2) -> list[Tensor]:
    found = []
    network.train()
    for step in range(steps):
        torch.manual_seed(step)
        network.zero_grad()
        with masks(Noise.of(0, step, "train.0", torch.arange(ROWS))):
            use(network).float().square().mean().backward()  # type: ignore[no-untyped-call]
        found.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    return found


def pair(name: str) -> tuple[nn.Module, nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    network, use = MADE[name]()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.2)  # those that begin as 0 would hide what is before them
    return network, copy.deepcopy(network), use


@pytest.mark.slow
@pytest.mark.parametrize("case", [*MADE, "gpt2 again", "dit again"])
def test_gradients_are_the_same_and_nothing_is_compiled_after_the_first_step(case: str) -> None:
    name, _, again = case.partition(" ")
    plain, other, use = pair(name)
    if again:
        recompute(name, other)
    expected = gradients(plain, use)
    found = list(blocks(other))
    assert len(found) > 1
    compiled(found, backend="aot_eager")
    first = gradients(other, use, steps=1)
    programs = counters["stats"]["unique_graphs"]
    assert programs == 1 if name in ALIKE else 1 < programs <= len(found)
    with patch.object(torch._dynamo.config, "error_on_recompile", True):
        more = gradients(other, use)
    assert counters["stats"]["unique_graphs"] == programs
    assert not counters["graph_break"], "a block is one program"
    for ours, theirs in zip([*first, *more], [expected[0], *expected], strict=True):
        assert (ours - theirs).norm() < 1e-6 * theirs.norm()


@pytest.mark.slow
def test_what_has_no_gradients_is_not_compiled_and_a_copy_has_its_own_weights() -> None:
    network, other, use = pair("llama")
    compiled(list(blocks(network)), backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(use(network), use(other))
    assert not counters["stats"]
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.mul_(0.5)
    assert not torch.allclose(use(copied), use(network), atol=1e-3)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.slow
def test_what_is_compiled_has_no_second_derivative() -> None:
    """Which is why penalties on gradients are refused."""
    network, _ = beside()
    compiled(list(blocks(network)), backend="aot_eager")
    network.eval()
    x = torch.ones(ROWS, 16, requires_grad=True)
    with masks(Noise.of(0, 0, "train.0", torch.arange(ROWS))):
        made = network(x)
    (gradient,) = torch.autograd.grad(made.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.square().sum().backward()  # type: ignore[no-untyped-call]


def test_names_in_checkpoints_are_the_same() -> None:
    network, _ = dit()
    before = list(network.state_dict())
    compiled(list(blocks(network)), backend="inductor")
    assert list(network.state_dict()) == before
    assert not [name for name in before if "_orig_mod" in name]


@pytest.mark.parametrize(("name", "count"), [("gpt2", 3), ("llama", 3), ("dit", 3), ("unet", 5), ("lora", 3)])
def test_which_blocks(name: str, count: int) -> None:
    network, _ = MADE[name]()
    assert len(list(blocks(network))) == count


def test_what_a_class_of_diffusers_names_as_repeated() -> None:
    from diffusers import UNet2DConditionModel

    settings = {"sample_size": 8, "block_out_channels": (4, 8), "layers_per_block": 1, "norm_num_groups": 2, "cross_attention_dim": 8}
    kinds = {"down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D")}
    network = UNet2DConditionModel(**settings, **kinds, attention_head_dim=2)
    assert {type(block).__name__ for block in blocks(network)} == {"BasicTransformerBlock"}


def spec(**family: object) -> Spec:
    whole = {"data": {"source": "builtin:digits"}, "training": {"steps": 1, "compile": True}}
    return Spec.model_validate({**whole, **(family or {"custom": {"objective": "a:b"}})})


class Answers:
    stream = False


@pytest.mark.parametrize(("found", "what"), [({}, "without blocks"), ({"language": {}}, "many lengths")])
def test_what_cannot_be_compiled_is_refused(found: dict[str, object], what: str) -> None:
    with pytest.raises(JobError, match=what) as refused:
        compile_blocks({"critic": nn.Linear(1, 1)}, spec(**found), Answers(), torch.device("cpu"))  # type: ignore[arg-type]
    assert (refused.value.code, refused.value.where) == ("GTJ0108", "spec.training.compile")


def test_a_machine_without_a_compiler_is_refused_with_its_reason() -> None:
    from torch._inductor import cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    failing.cache_clear()
    try:
        with patch.object(torch._inductor.config.cpp, "cxx", ("gentrain-no-such-compiler",)), pytest.raises(JobError) as refused:
            compile_blocks({"denoiser": dit()[0]}, spec(), Answers(), torch.device("cpu"))  # type: ignore[arg-type]
    finally:
        cpp_builder.cpp_compiler_search.cache_clear()
        failing.cache_clear()
    assert refused.value.code == "GTJ0135"
    assert "gentrain-no-such-compiler" in str(refused.value.why)
    assert "g++" in str(refused.value.how)
