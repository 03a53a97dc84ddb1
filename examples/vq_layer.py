"""A vector-quantisation layer (van den Oord et al. 2017, VQ-VAE) whose nearest code is found by l2_argmin.

    python examples/vq_layer.py [PICTURE.png]

Trains a small auto-encoder of 8 x 8 handwritten digits through 4 discrete codes of 64, that is 24 bits an image, and
prints how much of the pixels' variance the reconstructions of unseen digits explain.
"""

from __future__ import annotations

import sys

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from otkernels import l2_argmin


class VectorQuantizer(nn.Module):
    """Replaces each vector z [..., dim] by the nearest of `codes` learned ones; returns it and the layer's own loss.

    The nearest code has no useful derivative, so the gradient of what follows is passed to z unchanged
    (straight-through). The loss moves each chosen code to its vectors and, `commitment` times as fast, these to it.
    """

    def __init__(self, codes: int, dim: int, commitment: float = 0.25) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.randn(codes, dim))
        self.commitment = commitment

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = z.flatten(0, -2)  # [N, dim]
        value, index = l2_argmin(rows.detach(), self.codebook)  # |z - code|^2; its gradient reaches the codebook
        nearest = self.codebook[index].detach()
        loss = value.mean() + self.commitment * (rows - nearest).square().sum(-1).mean()
        passed = rows + (nearest - rows).detach()  # the value of nearest, the gradient of rows
        return passed.view_as(z), index.view(z.shape[:-1]), loss


class AutoEncoder(nn.Module):
    def __init__(self, pieces: int = 4, dim: int = 16, codes: int = 64) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, pieces * dim), nn.Unflatten(1, (pieces, dim))
        )
        self.quantizer = VectorQuantizer(codes, dim)
        self.decoder = nn.Sequential(nn.Flatten(), nn.Linear(pieces * dim, 128), nn.ReLU(), nn.Linear(128, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, index, loss = self.quantizer(self.encoder(x))
        return self.decoder(z), index, loss


def main(picture: str | None = None) -> None:
    torch.manual_seed(0)
    digits = torch.from_numpy(load_digits().data).float() / 16  # [1797, 64] in [0, 1]
    train, test = digits[:1500], digits[1500:]
    model = AutoEncoder()
    with torch.no_grad():  # codes start among the vectors that they will stand for; far away, most would never be used
        start = model.encoder(train).flatten(0, 1)
        model.quantizer.codebook.copy_(start[torch.randperm(len(start))[: len(model.quantizer.codebook)]])
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(800):
        x = train[torch.randint(len(train), (128,))]
        y, _, own_loss = model(x)
        optimizer.zero_grad()
        ((y - x).square().sum(-1).mean() + own_loss).backward()
        optimizer.step()

    with torch.no_grad():
        y, index, _ = model(test)
    explained = 1 - (y - test).square().sum() / (test - train.mean(0)).square().sum()
    print(f"codes used {index.unique().numel()} of {len(model.quantizer.codebook)}")
    print(f"variance explained {explained:.3f}")
    if picture:
        from torchvision.utils import save_image

        rows = torch.cat([test[:16], y[:16].clamp(0, 1)]).view(32, 1, 8, 8)
        save_image(nn.functional.interpolate(rows, scale_factor=4), picture, nrow=16)


if __name__ == "__main__":
    main(*sys.argv[1:])
