"""How far a student's next token is from a teacher's.

With p the teacher's distribution and q the student's, both of logits divided by the temperature:

    beta = 0          KL(p || q)                                                  Hinton, Vinyals and Dean, 2015 (arXiv 1503.02531)
    beta = 1          KL(q || p)
    0 < beta < 1      beta KL(p || m) + (1 - beta) KL(q || m),  m = beta p + (1 - beta) q      Agarwal et al., 2024 (arXiv 2306.13649)

The gradient of each is smaller by the square of the temperature: whoever adds it to another loss multiplies it by that (Hinton).

Where of p only the k likeliest tokens are known, all others are one more class, of the probability that is left for them: the divergence
is that of distributions over k + 1 classes. It is 0 where p = q, never larger than the whole one, by the log sum inequality (Cover and
Thomas, "Elements of information theory", 2006, theorem 2.7.1), and the whole one where k is the vocabulary. Without that class the student
would be taught the k as if there were nothing else, and be too sure of them (Anshumann et al., "Sparse logit sampling", 2025, arXiv
2503.16870).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def divergence(student_NV: Tensor, teacher_NV: Tensor, beta: float, temperature: float) -> Tensor:
    """Of each token, in nats, [N], from logits."""
    q_NV, p_NV = ((logits / temperature).log_softmax(dim=1) for logits in (student_NV, teacher_NV))
    return _between(q_NV, p_NV, beta)


def likeliest(teacher_NV: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """From logits (tokens int64 [N, k], the logarithms of their probabilities [N, k], that of all others together [N], -inf of none)."""
    p_NV = (teacher_NV / temperature).log_softmax(dim=1)
    logs_NK, tokens_NK = p_NV.topk(k, dim=1)
    return tokens_NK, logs_NK, _rest(p_NV, tokens_NK)


def divergence_of_likeliest(student_NV: Tensor, told: tuple[Tensor, Tensor, Tensor], beta: float, temperature: float) -> Tensor:
    """Of each token, in nats, [N], from the student's logits and what `likeliest` found of the teacher's at this temperature."""
    tokens_NK, logs_NK, rest_N = told
    q_NV = (student_NV / temperature).log_softmax(dim=1)
    q_NK = q_NV.gather(1, tokens_NK)
    if tokens_NK.shape[1] == q_NV.shape[1]:
        return _between(q_NK, logs_NK, beta)
    q_NC = torch.cat([q_NK, _rest(q_NV, tokens_NK)[:, None]], dim=1)
    return _between(q_NC, torch.cat([logs_NK, rest_N[:, None]], dim=1), beta)


def _rest(logs_NV: Tensor, tokens_NK: Tensor) -> Tensor:
    """[N]: the logarithm of the probability of all other tokens."""
    return logs_NV.scatter(1, tokens_NK, -math.inf).logsumexp(dim=1)


def _between(q_NV: Tensor, p_NV: Tensor, beta: float) -> Tensor:
    """Of logarithms of probabilities."""
    if beta == 0.0:
        return _kl(p_NV, q_NV)
    if beta == 1.0:
        return _kl(q_NV, p_NV)
    middle_NV = torch.logaddexp(p_NV + math.log(beta), q_NV + math.log1p(-beta))
    return beta * _kl(p_NV, middle_NV) + (1 - beta) * _kl(q_NV, middle_NV)


def _kl(p_NV: Tensor, q_NV: Tensor) -> Tensor:
    """KL(p || q), of logarithms."""
    return (p_NV.exp() * (p_NV - q_NV)).sum(dim=1)
