"""How far a student's next token is from a teacher's.

With p the teacher's distribution and q the student's, both of logits divided by the temperature:

    beta = 0          KL(p || q)                                                  Hinton, Vinyals and Dean, 2015 (arXiv 1503.02531)
    beta = 1          KL(q || p)
    0 < beta < 1      beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q      Agarwal et al., 2024 (arXiv 2306.13649)

The gradient of each is smaller by the square of the temperature: whoever adds it to another loss multiplies it by that (Hinton).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def divergence(student_NV: Tensor, teacher_NV: Tensor, beta: float, temperature: float) -> Tensor:
    """Of each token, in nats, [N], from logits."""
    q_NV, p_NV = ((logits / temperature).log_softmax(dim=1) for logits in (student_NV, teacher_NV))
    if beta == 0.0:
        return _kl(p_NV, q_NV)
    if beta == 1.0:
        return _kl(q_NV, p_NV)
    middle_NV = torch.logaddexp(p_NV + math.log(beta), q_NV + math.log1p(-beta))
    return beta * _kl(p_NV, middle_NV) + (1 - beta) * _kl(q_NV, middle_NV)


def _kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    """KL(p || q), of logarithms."""
    return (p_NV.exp() * (p_NV - q_NV)).sum(dim=1)
