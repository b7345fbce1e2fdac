"""What is known of latents before anything trains: their shape, and which of them are kept."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.checkpointer import latent
from trainjobs.checkpointer.latent import info_of, key, patiently, prepared
from trainjobs.data import look, open_source
from trainjobs.data.source import DataInfo
from trainjobs.world import World

LATENTS = {"autoencoder": "file:///models/vae"}
PICTURES = DataInfo("image", (3, 64, 64), 10, 2)


def spec(images: dict[str, Any] | None = None, conditioning: dict[str, Any] | None = None, **data: Any) -> Spec:
    family = {"latents": LATENTS, "process": {"prediction": "v"}, "conditioning": conditioning}
    return Spec.model_validate(
        {"diffusion": family, "data": {"source": "builtin:shapes", "images": images or {}, **data}, "training": {"steps": 1}}
    )


def autoencoder(**told: Any) -> Any:
    return SimpleNamespace(**{"channels": 3, "latent_channels": 4, "factor": 8, "decode": lambda z: z, **told})


def test_latents_are_smaller_and_have_their_own_channels() -> None:
    found = info_of(PICTURES, autoencoder())
    assert (found.shape, found.length, found.heldout, found.decode is not None) == ((4, 8, 8), 10, 2, True)


@pytest.mark.parametrize(("told", "said"), [({"channels": 1}, "channels to 1"), ({"factor": 48}, "48 and 96")])
def test_an_autoencoder_of_other_pictures_is_refused(told: dict[str, int], said: str) -> None:
    with pytest.raises(JobError) as refused:
        info_of(PICTURES, autoencoder(**told))
    assert refused.value.code == "GTJ0108"
    assert said in refused.value.how


def test_kept_latents_go_by_what_they_are_made_of() -> None:
    def of(given: Spec, autoencoder: str = "a", device: str = "cpu") -> str:
        return key(given, look(given), autoencoder, {}, device)

    same = of(spec())
    assert of(spec({"augment": ["horizontalFlip"]}, workers=3, cache="1Gi")) == same
    others = [
        of(spec({"size": 64})),
        of(spec(holdout=0.1)),
        of(spec(conditioning={"type": "text"})),
        of(spec(), "b"),
        of(spec(), device="cuda"),
    ]
    assert len({same, *others}) == 6


def test_whoever_waits_gives_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latent, "PATIENCE", 0.001)
    said: list[str] = []
    heard = threading.Event()

    def say(words: str) -> None:
        said.append(words)
        heard.set()

    patiently(lambda: heard.wait(20) and None, say)
    assert said[0] == "waiting for latents"
    with pytest.raises(JobError, match="broken"):
        patiently(lambda: (_ for _ in ()).throw(JobError("GTJ0113", "broken")), lambda words: None)


def test_pixels_are_left_as_they_are(tmp_path: Path) -> None:
    given = Spec.model_validate({"diffusion": {}, "data": {"source": "builtin:digits", "images": {"size": 8}}, "training": {"steps": 1}})
    source = open_source(given, tmp_path)
    world = World(0, 1, torch.device("cpu"))
    with ExitStack() as ends:
        assert prepared(given, source, (), tmp_path, world, {}, lambda words: None, ends) == (source, {})
