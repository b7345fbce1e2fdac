"""How many modes of a known mixture of Gaussians a generator covers: the usual measure of mode collapse on 2-D data.

A sample is of high quality when it lies within three standard deviations of a mode, and counts for the nearest one; a mode is covered
when at least one sample of high quality counts for it. Metz et al., "Unrolled generative adversarial networks", 2017 (arXiv 1611.02163,
the ring of eight Gaussians); Srivastava et al., "VEEGAN", 2017 (arXiv 1705.07761, section 4.1, the two numbers, from 2500 samples).
Points of the true mixture would score 1 - exp(-9/2) = 0.989 in the plane, not 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

GENERATED = 2000  # samples that the score is taken of


@dataclass(frozen=True)
class Coverage:
    covered: int  # modes with enough samples of high quality
    high_quality: float  # share of samples of high quality


def coverage(points_N2: Tensor, modes: Sequence[tuple[float, float]], sigma: float, *, least: int = 1) -> Coverage:
    """Coverage by the points, float [N, 2], N at least 1, of modes of standard deviation `sigma`. A mode needs `least` samples."""
    points = points_N2.detach().double().cpu()
    distance_NM = torch.cdist(points, torch.tensor(modes, dtype=torch.float64))
    nearest, mode = distance_NM.min(dim=1)
    good = nearest <= 3.0 * sigma  # False for NaN: a point that is no number is of no quality.
    counts = torch.bincount(mode[good], minlength=len(modes))
    return Coverage(covered=int((counts >= least).sum()), high_quality=float(good.double().mean()))


@dataclass
class ModeCoverage:
    """The score: modes of a known mixture that the generated points cover, and the share of points of high quality."""

    modes: Sequence[tuple[float, float]]
    sigma: float
    heldout: int = 0
    generated: int = GENERATED
    _points: list[Tensor] = field(default_factory=list)

    def add(self, real: Batch | None, made: Samples | None) -> None:
        if made is not None and made.points is not None:
            self._points.append(made.points.float().cpu())

    def result(self, world: World) -> Mapping[str, float]:
        everywhere = [points for share in world.gather(self._points) for points in share]
        if not everywhere:
            return {}
        covered = coverage(torch.cat(everywhere), self.modes, self.sigma)
        return {"modes": float(covered.covered), "modes/quality": covered.high_quality}
