"""POT-GAN (Avraham et al. 2019): WGAN-GP whose generator also pays for latent transport."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from models.config import check_fields, check_range
from models.export import load_game
from models.forest import LatentTransformationForest
from models.games.game import Game, Loss, Phase, Turn, full
from models.games.vae import VaeGame
from models.games.wgan_gp import WganGp, WganGpConfig
from models.networks import make_critic, make_generator
from models.pairing import PAIRINGS, PairingName, counted_share, distinct_share
from models.transforms import AffineTransform, MlpTransform


@dataclass(frozen=True)
class ForestConfig:
    """The Latent Transformation Forest F and Algorithm 1, which trains it (lr and inner_steps: whatever F is)."""

    known_as: ClassVar[str] = "forest"
    at_start: ClassVar[frozenset[str]] = frozenset({"trees", "depth", "thresholds", "leaves", "learn_thresholds"})

    trees: int = 18
    """T; 18 trees of depth 3 read each of 128 latent features about once. [open]"""
    depth: int = 3
    """D; a tree has 2^D leaves. [open]"""
    scale: float = 1.0
    """Routing is sigmoid(scale * (z - t)); the paper writes sigmoid(z - t). [stated: 1]"""
    thresholds: Literal["zeros", "latents"] = "latents"
    """Thresholds fixed at zero, or drawn from the real latents of the first batch. [open]"""
    leaves: Literal["normal", "identity"] = "identity"
    """Leaves start as noise, or fitted so that F is near the identity: docs/studies/forest.md. [open]"""
    learn_thresholds: bool = False
    """Also train the thresholds; the paper trains the leaves. [stated: False]"""
    lr: float = 2e-4
    """Adam's learning rate for F. [stated]"""
    inner_steps: int = 5
    """Iterations of Algorithm 1 per batch ("iters"). [open]"""

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("trees", "depth", "inner_steps"):
            check_range(self, name, least=1)
        check_range(self, "depth", most=16)
        for name in ("scale", "lr"):
            check_range(self, name, above=0)


@dataclass(frozen=True)
class PotGanConfig(WganGpConfig):
    """POT-GAN."""

    at_start: ClassVar[frozenset[str]] = frozenset({"transform", "encoder"})
    pairing: PairingName = "cover"
    """cover: section 4.1; literal: Algorithm 1 as printed; assignment: the permutation of Eq. 14; sinkhorn. [open]"""
    transform: Literal["forest", "identity", "affine", "mlp"] = "forest"
    """F: the forest [stated]; for ablations the identity (the plain L2 cost), an affine map, or an MLP. [open]"""
    transport_weight: float = 0.01
    """lambda_POT of Eq. 13; 1.0 and 0.1 were worse on images. [stated]"""
    forest: ForestConfig = field(default_factory=ForestConfig)
    """F's size and training."""
    encoder: str = "identity"
    """Q: the directory of an exported VAE; identity: the encoder of the VAE that was trained before (images), or the
    sample itself (points, and images with vae.iterations 0). The paper takes a VAE. [stated]"""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, "transport_weight", least=0)
        if not self.encoder:
            raise ValueError("PotGanConfig: encoder must be a folder's name or identity, got ''")
        if self.encoder != "identity":  # a run may be resumed from another folder
            object.__setattr__(self, "encoder", os.path.abspath(os.path.expanduser(self.encoder)))


class Encoded(NamedTuple):
    """A batch in the turns of F and of the generator."""

    fake: Tensor
    z_r: Tensor
    z_g: Tensor


class PotGan(WganGp):
    """POT-GAN (Avraham et al. 2019, Eq. 13): WGAN-GP whose generator also pays for latent transport.

    Players ``critic``, ``generator`` and F by its kind (``forest``, ``affine`` or ``mlp``) unless F is the identity.
    ``encoder`` (Q) is frozen: in eval mode, without gradients of its own, but they flow through it to the generator.
    """

    Config: ClassVar[Any] = PotGanConfig
    fixed = True
    phases: ClassVar[Mapping[str, Phase]] = {
        "vae": Phase(
            VaeGame,
            {"iterations": 20_000, "betas": (0.9, 0.999)},
            needed=lambda config, shape: len(shape) == 3 and config.encoder == "identity",  # a point is its own latent
        )
    }
    notes: ClassVar[Mapping[str, str]] = {
        **WganGp.notes,
        "transport": "Matched cost of real latents and transformed generated ones, a squared distance (Eq. 13).",
        "used": "Distinct values of rho / N: the share of generated samples with a pair (literal pairs: of real ones).",
        "marginal_error": "How far the entropic plan is from uniform marginals.",
    }
    forest_started: Tensor

    def __init__(
        self, config: PotGanConfig, generator: nn.Module, critic: nn.Module, encoder: nn.Module, latent_dim: int
    ) -> None:
        super().__init__(config, generator, critic)
        self.fixed = config.pairing != "sinkhorn"  # which ends when it has converged
        if config.pairing == "assignment":  # is solved on the host
            self.eager = frozenset(["generator"])
        self._kept: tuple[Tensor, Encoded] | None = None  # from F's turn to the generator's, whose batch is the same
        self._vae: tuple[VaeGame, ...] = ()  # in a tuple: of the VAE, only the encoder is a part of this game
        self.encoder = encoder.requires_grad_(False).eval()
        if config.transform == "identity":
            return
        self.players[config.transform] = make_transform(config, latent_dim)
        self.eager |= {config.transform}  # its step is Algorithm 1, at best in one launch already
        critic_turn, generator_turn = self.order
        self.order = (critic_turn, Turn(config.transform), replace(generator_turn, fresh=False))
        if config.transform == "forest":
            # Saved with the game: a resumed run must not start the forest anew.
            self.register_buffer("forest_started", torch.tensor(False))
            # Python's copy: only the first turn of a run, or after loading a state, waits for the device.
            self._knows_started = False
            self.register_load_state_dict_post_hook(_forget_started)

    @classmethod
    def build(cls, config: PotGanConfig, shape: tuple[int, ...]) -> PotGan:
        """The game for samples of ``shape``; reads the encoder from ``config.encoder``."""
        return cls._around(None if config.encoder == "identity" else load_vae(config.encoder, shape), config, shape)

    @classmethod
    def build_on(cls, config: PotGanConfig, shape: tuple[int, ...], earlier: Mapping[str, Game]) -> PotGan:
        """Around the encoder of the phase's VAE, if it was played; ``config.encoder`` is read only if it was not."""
        if "vae" not in earlier:
            return cls.build(config, shape)
        return cls._around(cast(VaeGame, earlier["vae"]), config, shape)

    @classmethod
    def _around(cls, vae: VaeGame | None, config: PotGanConfig, shape: tuple[int, ...]) -> PotGan:
        encoder: nn.Module = nn.Flatten(-len(shape)) if vae is None else vae.vae.encoder
        latent_dim = math.prod(shape) if vae is None else vae.vae.encoder.latent_dim
        generator, critic = make_generator(config.networks, shape), make_critic(config.networks, shape)
        game = cls(config, generator, critic, encoder, latent_dim)
        game._vae = () if vae is None else (vae,)
        return game

    def parts(self) -> dict[str, Any]:
        """The config of the VAE whose encoder this game has; its weights are among the game's own."""
        return {"vae": dataclasses.asdict(self._vae[0].config)} if self._vae else {}

    def reconstruct(self, real: Tensor) -> Tensor | None:
        """What the VAE whose encoder is Q makes of ``real``; None without one.

        None also for a game read from its export, which has the encoder alone.
        """
        if not self._vae or next(self._vae[0].vae.decoder.parameters()).is_meta:
            return None
        decoder = self._vae[0].vae.decoder.to(next(self.encoder.parameters()).device).eval()  # moved beside Q once
        return decoder(self.encoder(real))

    def train(self, mode: bool = True) -> PotGan:
        super().train(mode)
        self.encoder.eval()
        return self

    def optimizer_options(self, player: str) -> dict[str, Any]:
        """F's own learning rate."""
        return {"lr": self.config.forest.lr} if player == self.config.transform else {}

    def transform(self, z_g: Tensor) -> Tensor:
        """F(z_g) [N, d]."""
        return z_g if self.config.transform == "identity" else self.players[self.config.transform](z_g)

    def transport(self, z_r: Tensor, z_g: Tensor) -> Loss:
        """L_POT, the matched cost of z_r [N, d] and F(z_g) [N, d] under the configured pairing: a scalar (Eq. 13).

        Logged: the cost; the share ``used`` of the batch's generated samples that rho takes; for ``sinkhorn``, whose
        plan takes all of them, its ``marginal_error`` instead.
        """
        z_r, transformed = full(z_r), full(self.transform(z_g))
        pairs = PAIRINGS[self.config.pairing](z_r, transformed)
        cost = pairs.cost(z_r, transformed)
        terms = {"transport": cost.detach()}
        if pairs.rho is not None:
            terms["used"] = distinct_share(pairs.rho, transformed.shape[-2])
        if pairs.marginal_error is not None:
            terms["marginal_error"] = pairs.marginal_error
        return Loss(cost, terms)

    def loss(self, player: str, real: Tensor, noise: Tensor) -> Loss:
        if player == self.config.transform and player in self.players:
            return self.transform_loss(*self.latents(real, noise))
        return super().loss(player, real, noise)

    @torch.no_grad()
    def latents(self, real: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """z_r = Q(x_r) and z_g = Q(G(noise)) of all processes, each [N, d], without gradients."""
        if self.keeps_batch:
            with torch.enable_grad(), self.cast(real):
                batch = self._encode(real, noise)
            self._kept = noise, batch
            return batch.z_r, batch.z_g.detach()
        if "generator" in self.recorded and (begun := self.recorded["generator"].begin(real, noise)):
            z_r, z_g = begun
            return z_r, z_g
        with self.cast(real):
            batch = self._encode(real, noise)
        return batch.z_r, batch.z_g

    def _encode(self, real: Tensor, noise: Tensor) -> Encoded:
        """Generated samples, and the latents of all processes, whose gradients reach the generator."""
        gather = self.processes.gather
        with torch.no_grad():
            z_r = gather(full(self.encoder(real)))
        fake = self.sample(noise)
        return Encoded(fake, z_r, gather(full(self.encoder(fake))))

    def _take(self, real: Tensor, noise: Tensor) -> Encoded:
        """What F's turn made of the same batch, once; made now where it did not."""
        kept, self._kept = self._kept, None
        return kept[1] if kept is not None and kept[0] is noise else self._encode(real, noise)

    def transform_loss(self, z_r: Tensor, z_g: Tensor) -> Loss:
        """Algorithm 1's cost of one inner step, a function of F's parameters."""
        return self.transport(z_r, z_g)

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Eq. 13: -mean D(x_g) + lambda_POT L_POT, with the pairs found under the leaves as they are now.

        The latents of L_POT are those of all processes, the scores this one's.
        """
        batch = self._take(real, noise)
        score = self.score(batch.fake).mean(-1)
        transport = self._paid(batch.z_r, batch.z_g)
        value = -score + self.config.transport_weight * transport.value
        return Loss(value, {"score": score.detach(), **transport.terms}, (batch.z_r, batch.z_g))

    def _paid(self, z_r: Tensor, z_g: Tensor) -> Loss:
        """``transport`` as the generator pays it: F's own parameters get no gradient, and one op can do all."""
        if self.config.transform != "forest" or self.config.pairing not in ("cover", "literal"):
            return self.transport(z_r, z_g)
        forest = cast(LatentTransformationForest, self.players["forest"])
        paid = forest.cost(full(z_r), full(z_g), self.config.pairing)
        return Loss(paid.cost, {"transport": paid.cost.detach(), "used": paid.used})

    def step(self, player: str, real: Tensor, noise: Tensor, optimizer: torch.optim.Optimizer) -> Loss:
        """F's turn is Algorithm 1 whole: ``inner_steps`` times pair, matched cost, Adam, on one batch.

        One fused call where pairs come from an argmin and only leaves learn; otherwise step by step.
        """
        if player != self.config.transform or player not in self.players:
            return super().step(player, real, noise, optimizer)
        z_r, z_g = self.latents(real, noise)
        if player == "forest":
            self._start_once(z_r)
            forest = cast(LatentTransformationForest, self.players["forest"])
            if self.config.pairing in ("cover", "literal") and forest.fits(optimizer):
                fitted = forest.fit(z_r, z_g, optimizer, self.config.forest.inner_steps, self.config.pairing)
                used = counted_share(fitted.index, z_g.shape[-2])
                return Loss(fitted.cost[..., -1], {"transport": fitted.cost[..., -1], "used": used})
        for _ in range(self.config.forest.inner_steps):
            optimizer.zero_grad(set_to_none=True)
            loss = self.transform_loss(z_r, z_g)
            loss.value.sum().backward()  # alike in all processes: F sees the latents of all
            optimizer.step()
        return loss

    def _start_once(self, z_r: Tensor) -> None:
        if self._knows_started:
            return
        if not self.forest_started:
            self.start_forest(z_r)
        self._knows_started = True

    def start_forest(self, z_r: Tensor) -> None:
        """Thresholds and leaves from the first real latents, as configured."""
        forest, f = cast(LatentTransformationForest, self.players["forest"]), self.config.forest
        if f.thresholds == "latents":
            forest.set_thresholds(z_r)
        if f.leaves == "identity":
            forest.set_identity(z_r)
        self.forest_started.fill_(True)


def make_transform(config: PotGanConfig, latent_dim: int) -> nn.Module:
    """F: latents [N, d] -> [N, d]."""
    f = config.forest
    if config.transform == "forest":
        return LatentTransformationForest(
            latent_dim, f.trees, f.depth, scale=f.scale, learn_thresholds=f.learn_thresholds
        )
    return AffineTransform(latent_dim) if config.transform == "affine" else MlpTransform(latent_dim, 128)


def load_vae(path: str, shape: tuple[int, ...]) -> VaeGame:
    """The VAE exported to the directory ``path``, which must take samples of ``shape``."""
    game, vae_shape = load_game(path, {"vae": VaeGame})
    if vae_shape != tuple(shape):
        raise ValueError(f"PotGan: encoder must take samples of {list(shape)}, got {path} for {list(vae_shape)}")
    return cast(VaeGame, game)


def _forget_started(game: Any, incompatible_keys: Any) -> None:
    game._knows_started = False
