"""Iterations of four games as one writes them in PyTorch without this package: the baseline of ``training``.

The networks are the same modules, so that what differs is the step: PyTorch's own optimizers as they come, a forest of
a few tensor operations, nearest neighbours by torch.cdist. Settings are those of the game's config.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from models.games import Game, PotGan
from train.run.config import TrainConfig

Draw = Callable[[], tuple[Tensor, Tensor]]
Iterate = Callable[[], None]


class Forest(nn.Module):
    """The soft forest of POT-GAN's Eq. 15: each tree's leaves weighed by the chance that a latent reaches them."""

    def __init__(self, dim: int, trees: int, depth: int) -> None:
        super().__init__()
        nodes = 2**depth - 1
        self.depth = depth
        self.register_buffer("feature", torch.arange(trees * nodes).view(trees, nodes) % dim)
        self.register_buffer("thresholds", torch.randn(trees, nodes))
        self.leaves = nn.Parameter(0.1 * torch.randn(trees, 2**depth, dim))

    def forward(self, z: Tensor) -> Tensor:
        """z [N, dim] -> [N, dim]."""
        right = torch.sigmoid(z[:, self.feature] - self.thresholds)  # [N, trees, nodes]
        route = torch.ones_like(right[..., :1])
        for level in range(self.depth):
            here = right[..., 2**level - 1 : 2 ** (level + 1) - 1]
            route = torch.stack([route * (1 - here), route * here], -1).flatten(-2)
        return torch.einsum("ntl,tld->nd", route, self.leaves) / len(self.leaves)


def gan(game: Game, config: TrainConfig, draw: Draw) -> Iterate:
    """Goodfellow et al. 2014, with the loss that does not saturate."""
    generator, discriminator = (copy.deepcopy(game.players[name]) for name in ("generator", "discriminator"))
    steps, (generator_adam, discriminator_adam) = (
        config.game.discriminator_steps,
        _adams(config, generator, discriminator),
    )

    def iterate() -> None:
        for _ in range(steps):
            real, noise = draw()
            discriminator_adam.zero_grad()
            fake = generator(noise).detach()
            loss = softplus(-discriminator(real)).mean() + softplus(discriminator(fake)).mean()
            loss.backward()
            discriminator_adam.step()
        _, noise = draw()
        generator_adam.zero_grad()
        softplus(-discriminator(generator(noise))).mean().backward()
        generator_adam.step()

    return iterate


def wgan_gp(game: Game, config: TrainConfig, draw: Draw) -> Iterate:
    """Gulrajani et al. 2017."""
    generator, critic = (copy.deepcopy(game.players[name]) for name in ("generator", "critic"))
    generator_adam, critic_adam = _adams(config, generator, critic)
    update_critic = _critic_step(generator, critic, critic_adam, config.game.gradient_penalty_weight)

    def iterate() -> None:
        for _ in range(config.game.critic_steps):
            update_critic(*draw())
        _, noise = draw()
        generator_adam.zero_grad()
        (-critic(generator(noise)).mean()).backward()
        generator_adam.step()

    return iterate


def potgan(game: Game, config: TrainConfig, draw: Draw) -> Iterate:
    """Avraham et al. 2019, Algorithm 2, with the pairs of section 4.1."""
    assert isinstance(game, PotGan)
    generator, critic = (copy.deepcopy(game.players[name]) for name in ("generator", "critic"))
    encoder, latent = copy.deepcopy(game.encoder), game.players["forest"].leaves.shape[-1]
    settings = config.game.forest
    forest = Forest(latent, settings.trees, settings.depth).to(next(generator.parameters()).device)
    generator_adam, critic_adam = _adams(config, generator, critic)
    forest_adam = torch.optim.Adam(forest.parameters(), settings.lr, config.betas)
    update_critic = _critic_step(generator, critic, critic_adam, config.game.gradient_penalty_weight)

    def transport(z_r: Tensor, z_g: Tensor) -> Tensor:
        moved = forest(z_g)
        with torch.no_grad():
            nearest = torch.cdist(z_r, moved).argmin(1)
        return (z_r - moved[nearest]).square().sum(1).mean()

    def iterate() -> None:
        for _ in range(config.game.critic_steps):
            update_critic(*draw())
        real, noise = draw()
        with torch.no_grad():
            z_r, z_g = encoder(real), encoder(generator(noise))
        for _ in range(settings.inner_steps):
            forest_adam.zero_grad()
            transport(z_r, z_g).backward()
            forest_adam.step()
        generator_adam.zero_grad()
        fake = generator(noise)
        loss = -critic(fake).mean() + config.game.transport_weight * transport(z_r, encoder(fake))
        loss.backward()
        generator_adam.step()

    return iterate


def three_player_wgan(game: Game, config: TrainConfig, draw: Draw) -> Iterate:
    """Dam et al. 2019, Eq. 10, with the cost |x - y|_2."""
    generator, critic, mover = (copy.deepcopy(game.players[name]) for name in ("generator", "critic", "mover"))
    generator_adam, critic_adam, mover_adam = _adams(config, generator, critic, mover)
    mean = config.game.cost_scale == "mean"

    def iterate() -> None:
        real, noise = draw()
        for _ in range(config.game.mover_steps):
            mover_adam.zero_grad()
            moved = mover(real)
            cost = torch.linalg.vector_norm((moved - real).flatten(1), dim=1)
            weight = config.game.lambda_start / (real[0].numel() ** 0.5 if mean else 1)
            (weight * cost - critic(moved)).mean().backward()
            mover_adam.step()
        critic_adam.zero_grad()
        (critic(mover(real).detach()) - critic(generator(noise).detach())).mean().backward()
        critic_adam.step()
        generator_adam.zero_grad()
        critic(generator(noise)).mean().backward()
        generator_adam.step()

    return iterate


PLAIN: dict[str, Callable[[Any, TrainConfig, Draw], Iterate]] = {
    "gan": gan,
    "wgan-gp": wgan_gp,
    "potgan": potgan,
    "3p-wgan": three_player_wgan,
}


def _adams(config: TrainConfig, *networks: nn.Module) -> list[torch.optim.Adam]:
    return [torch.optim.Adam(network.parameters(), config.lr, config.betas) for network in networks]


def _critic_step(
    generator: nn.Module, critic: nn.Module, adam: torch.optim.Adam, weight: float
) -> Callable[[Tensor, Tensor], None]:
    def step(real: Tensor, noise: Tensor) -> None:
        adam.zero_grad()
        fake = generator(noise).detach()
        share = torch.rand(len(real), *[1] * (real.dim() - 1), device=real.device)
        between = (share * real + (1 - share) * fake).requires_grad_()
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = (gradient.flatten(1).norm(dim=1) - 1).square().mean()
        loss = critic(fake).mean() - critic(real).mean() + weight * penalty
        loss.backward()
        adam.step()

    return step
