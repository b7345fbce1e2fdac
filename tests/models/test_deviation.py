"""Minibatch deviation against numpy, and that it does not depend on the cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from trainjobs.models import mlp
from trainjobs.models.deviation import MinibatchDeviation


@pytest.mark.parametrize("shape", [(12, 5, 3, 2), (12, 5)])
def test_is_the_mean_of_numpys_standard_deviations(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape)
    made = MinibatchDeviation(4)(x)
    assert made.shape == (12, 6, *shape[2:])
    assert torch.equal(made[:, :5], x)
    for number in range(3):
        group = x[4 * number : 4 * number + 4].numpy()
        expected = np.sqrt(group.var(axis=0) + 1e-8).mean()
        np.testing.assert_allclose(made[4 * number : 4 * number + 4, 5].numpy(), expected, rtol=1e-5)


def test_groups_are_of_consecutive_samples_so_a_batch_may_be_cut_between_them() -> None:
    torch.manual_seed(0)
    judge, x = mlp.Discriminator(channels=8, depth=2, dimension=2, batch_norm=False, spectral=False, group=4), torch.randn(16, 2)
    parts = torch.cat([judge(x[:4]), judge(x[4:12]), judge(x[12:])])
    torch.testing.assert_close(judge(x), parts, rtol=0, atol=1e-7)
    assert not torch.allclose(judge(x.view(4, 4, 2).transpose(0, 1).reshape(16, 2)).view(4, 4).T.reshape(16), parts, atol=1e-4)


def test_samples_that_are_all_alike_show() -> None:
    alike = MinibatchDeviation(2)(torch.ones(4, 3))
    assert alike[:, 3].tolist() == pytest.approx([1e-4] * 4)  # the root of 1e-8
