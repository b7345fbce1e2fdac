"""What lies between two samples of a model with latents: a GAN's z, or w where it has styles, and a VAE's z.

From one z to another leads a quarter of a circle, on which normal numbers stay normal; in w, which is no Gaussian, a straight line. A
latent space that holds together changes what it draws little by little; one that has learned samples by heart jumps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trainjobs.api.job import Spec
from trainjobs.evaluate.evaluation import asked
from trainjobs.evaluate.looking import Looking
from trainjobs.evaluate.pictures import Modes, save_pairs
from trainjobs.evaluate.rows import save_sheet
from trainjobs.evaluate.score import joined
from trainjobs.evaluate.setting import Setting
from trainjobs.evaluate.shown import Pairs, reconstructions
from trainjobs.noise import Between, mix
from trainjobs.objectives.phase import At, Batch, Samples

STEPS = 7  # from a sample to the next: six pictures lie between them
LINES = 4


@dataclass(frozen=True)
class Looks:
    """What people look at beside the samples, where there is such a thing."""

    pairs: Pairs | None  # held-out samples as the model gives them back
    ways: Samples | None


def looks(setting: Setting, at: At) -> Looks:
    """On rank 0; every rank must call it."""
    return Looks(reconstructions(setting, at), ways(setting, at))


def has_ways(spec: Spec, kind: str) -> bool:
    return kind == "image" and (spec.gan is not None or spec.vae is not None)


def save_looks(looks: Looks, folder: Path, step: int, modes: Modes | None) -> None:
    if looks.pairs is not None:
        save_pairs(looks.pairs.originals, looks.pairs.rebuilt, folder / f"reconstructed-{step:06d}", modes=modes)
    if looks.ways is not None:
        save_sheet(looks.ways, folder / f"between-{step:06d}", steps=STEPS)


def ways(setting: Setting, at: At) -> Samples | None:
    """LINES * STEPS + 1 pictures on the way from sample 0 to sample 1, from there to 2, and so on, each for what its first sample is drawn
    for; on rank 0, elsewhere none. None for a model without latents. Every rank must call it."""
    if not has_ways(setting.spec, setting.source.info.kind):
        return None
    pieces, looking, world = [], Looking(setting.tell), setting.world
    with setting.inference(), looking.listening(setting.networks):
        for rows, counts in looking.turns("drawing between samples,", LINES * STEPS + 1, setting.micro, world):
            places = rows.to(world.device)
            noise = Between.of(mix(setting.spec.training.seed, 0, "samples"), places, STEPS)
            told = asked(setting.spec, setting.source, rows // STEPS)
            data = {name: value.to(world.device) for name, value in told.items()}
            made = setting.objective.sample(Batch(data, noise, len(rows), at))
            if counts:
                pieces.append(made)
    turns = world.collect(pieces)  # rank by rank; a turn's rows lie rank by rank, too
    found = joined([share[turn] for turn in range(max(map(len, turns), default=0)) for share in turns if turn < len(share)])
    return found if found.images is not None else None
