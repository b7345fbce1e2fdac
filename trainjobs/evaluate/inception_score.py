"""The inception score: how sure a classifier is of each generated picture, and how different its answers are.

    IS = exp(E_x KL(p(y|x) || p(y))),  p(y) = E_x p(y|x)

(Salimans et al., "Improved techniques for training GANs", 2016, arXiv 1606.03498, section 4): 1 where all pictures are answered alike, the
number of classes at most. As in the authors' code it is a mean over ten parts of the pictures, of which each has its own p(y). It looks at
no real picture, and a model that learned one picture of each class by heart has the best score there is.
"""

from __future__ import annotations

import torch
from torch import Tensor

PARTS = 10


def inception_score(logits_NK: Tensor, parts: int = PARTS) -> float:
    """Of a classifier's outputs before the softmax; N at least 1. The parts are of the pictures as they lie."""
    log_p = logits_NK.double().log_softmax(dim=1)
    scores = []
    for part in log_p.tensor_split(min(parts, len(log_p))):
        log_mean = part.logsumexp(dim=0) - torch.tensor(float(len(part)), dtype=torch.float64).log()
        scores.append((part.exp() * (part - log_mean)).sum(dim=1).mean().exp())
    return float(torch.stack(scores).mean())
