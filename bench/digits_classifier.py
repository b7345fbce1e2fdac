"""Makes trainjobs/evaluate/digits.safetensors again, the classifier whose features `fid/digits` and the like compare.

    .venv/bin/python -m bench.digits_classifier [FILE]

Trained from scratch on 1,500 of scikit-learn's digits, as builtin:digits has them at 16 pixels, each moved by a pixel or two; the other 297
say how good it is.
One thread and fixed seeds: on the same machine the same file to the last bit, on others a network as good.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from trainjobs.data import digits
from trainjobs.data.sampler import permutation
from trainjobs.evaluate.features import DIGITS, WEIGHTS, Classifier

TRAINED, EPOCHS, BATCH, RATE, SEED, MOVED = 1500, 8, 32, 2e-3, 0, 2


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """(pictures [1797, 1, 16, 16], labels [1797]), in an order by hashes: of those that are trained on, and of the others behind them."""
    order = permutation(digits.COUNT, "digits classifier")
    return torch.from_numpy(digits.load(DIGITS))[order], torch.from_numpy(digits.labels())[order]


def trained() -> Classifier:
    images, labels = data()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        network = Classifier()
        optimizer = torch.optim.Adam(network.parameters(), lr=RATE)
        steps = EPOCHS * -(-TRAINED // BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(EPOCHS):
            for rows in torch.randperm(TRAINED).split(BATCH):
                optimizer.zero_grad()
                padded = F.pad(images[rows], (MOVED,) * 4, value=-1.0)
                down, right = torch.randint(2 * MOVED + 1, (2,)).tolist()
                moved = padded[:, :, down : down + DIGITS, right : right + DIGITS]
                F.cross_entropy(network(moved)[1], labels[rows]).backward()
                optimizer.step()
                schedule.step()
    return network.eval()


def accuracy(network: Classifier) -> float:
    """On the digits that it was not trained on."""
    images, labels = data()
    with torch.no_grad():
        return float((network(images[TRAINED:])[1].argmax(dim=1) == labels[TRAINED:]).float().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = trained()
    print(f"{sum(parameter.numel() for parameter in made.parameters())} weights, {accuracy(made):.3f} right of the digits held out")
    save_file(made.state_dict(), Path(sys.argv[1]) if sys.argv[1:] else WEIGHTS)
