"""A vector-quantisation layer (van den Oord et al. 2017, VQ-VAE) whose nearest code is found by l2_argmin.

    python examples/vq_layer.py [PICTURE.png]

Trains a small auto-encoder of 8 x 8 handwritten digits through 4 codes of 64, that is 24 bits an image. On
unseen digits it prints the squared error of a pixel in [0, 1], how much of the pixels' variance the reconstructions
explain, and the codes' perplexity: exp of the entropy of their frequencies, 64 where all are used equally often.
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


def main(picture: str | None = None, steps: int = 800) -> dict[str, float]:
    torch.manual_seed(0)
    digits = torch.from_numpy(load_digits().data).float() / 16  # [1797, 64] in [0, 1]
    train, test = digits[:1500], digits[1500:]
    encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.Unflatten(1, (4, 16)))
    quantizer = VectorQuantizer(codes=64, dim=16)
    decoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64))
    with torch.no_grad():  # codes start among the vectors that they will stand for; far away, most would never be used
        quantizer.codebook.copy_(encoder(train).flatten(0, 1)[torch.randperm(6000)[:64]])
    optimizer = torch.optim.Adam(nn.ModuleList([encoder, quantizer, decoder]).parameters(), lr=2e-3)
    for _ in range(steps):
        x = train[torch.randint(len(train), (128,))]
        codes, _, own_loss = quantizer(encoder(x))
        optimizer.zero_grad()
        ((decoder(codes) - x).square().sum(-1).mean() + own_loss).backward()
        optimizer.step()

    with torch.no_grad():
        codes, index, _ = quantizer(encoder(test))
        y = decoder(codes)  # [297, 64]
    error, spread = (y - test).square().mean(), (test - train.mean(0)).square().mean()
    share = index.flatten().bincount(minlength=64) / index.numel()
    figures = {
        "reconstruction error": error.item(),
        "variance explained": 1 - (error / spread).item(),
        "perplexity": torch.special.entr(share).sum().exp().item(),
    }
    for name, figure in figures.items():
        print(f"{name:<20}  {figure:.4g}")
    if picture:
        from torchvision.utils import save_image

        rows = torch.cat([test[:16], y[:16].clamp(0, 1)]).view(32, 1, 8, 8)
        save_image(nn.functional.interpolate(rows, scale_factor=4), picture, nrow=16)
    return figures


if __name__ == "__main__":
    main(*sys.argv[1:])
