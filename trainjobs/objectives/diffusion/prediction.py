"""What a network f(x_t, t) predicts of x_t = a x_0 + s eps, and how much each timestep counts. All functions are elementwise.

epsilon  target = eps             x_0 = (x_t - s f) / a   (Ho et al., 2020, arXiv 2006.11239, equation 14)
v        target = a eps - s x_0   x_0 = a x_t - s f       (Salimans and Ho, 2022, arXiv 2202.00512, appendix D)
sample   target = x_0             x_0 = f                 (ibid., section 4)

Min-SNR: the squared error of x_0 counts min(SNR, gamma) times, SNR = a^2 / s^2; of eps that is min(SNR, gamma) / SNR, of v
min(SNR, gamma) / (SNR + 1) (Hang et al., "Efficient diffusion training via min-SNR weighting strategy", 2023, arXiv 2303.09556,
section 3.4).
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

Prediction = Literal["epsilon", "v", "sample"]


def target(prediction: Prediction, x: Tensor, eps: Tensor, a: Tensor, s: Tensor) -> Tensor:
    if prediction == "epsilon":
        return eps
    return a * eps - s * x if prediction == "v" else x


def image(prediction: Prediction, predicted: Tensor, x_t: Tensor, a: Tensor | float, s: Tensor | float) -> Tensor:
    """x_0. Only with epsilon is `a` divided by: it is 0 at the last step of a zero terminal SNR."""
    if prediction == "epsilon":
        return (x_t - s * predicted) / a
    return a * x_t - s * predicted if prediction == "v" else predicted


def weight(prediction: Prediction, gamma: float, a: Tensor, s: Tensor) -> Tensor:
    snr = (a / s).square()
    least = snr.clamp(max=gamma)
    if prediction == "epsilon":
        return least / snr
    return least / (snr + 1.0) if prediction == "v" else least
