"""3P-WGAN (Dam et al. 2019): a mover takes the place of the critic's Lipschitz constraint."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from models.config import check_range
from models.games.adversarial import Adversarial, AdversarialConfig
from models.games.cost import Cost, make_cost, try_cost
from models.games.game import Loss, Turn, full
from models.networks import NetworkConfig, make_critic, make_generator, make_mover


@dataclass(frozen=True)
class ThreePlayerWganConfig(AdversarialConfig):
    """3P-WGAN."""

    at_start: ClassVar[frozenset[str]] = frozenset({"mover", "batch_norm"})
    code: ClassVar[frozenset[str]] = frozenset({"cost"})
    networks: NetworkConfig = field(default_factory=lambda: NetworkConfig(init="normal"))
    """Generator, critic and mover; weights start as N(0, 0.02^2): the paper's N(0, 0.02 I), for images. [stated]"""
    equation: Literal[10, 9] = 10
    """10: the mover moves real samples; 9: generated ones. The paper finds 10 better and uses it. [stated]"""
    mover: Literal["learned", "identity", "noisy-identity", "input-noise", "output-noise"] = "learned"
    """h: a network, or one of section 3.5: h(x) = x; x + noise; network(x + noise); network(x) + noise. [stated]"""
    mover_noise: float = 0.1
    """Standard deviation of the Gaussian noise of those movers. [open]"""
    mover_steps: int = 5
    """n_mover of Algorithm 1: mover steps per critic step, all on one batch. [stated]"""
    cost: str = "l2"
    """c(x, y) / lambda: l2 is |x - y|_2 [stated for the experiments], lp is |x - y|_p^p, and MODULE:FUNCTION any
    differentiable function of two tensors [..., D] with values [...]."""
    p: float = 2.0
    """The p of lp, at least 1: below, the gradient has no bound where nothing moves. [open]"""
    cost_scale: Literal["sum", "mean"] = "sum"
    """sum over coordinates, as the text [stated]; mean, as the authors' code: l2 is then sqrt(D) times weaker, lp D
    times. A function of your own is taken as it is."""
    lambda_start: float = 0.1
    """lambda, the weight of the cost, at the first iteration; it rises linearly with the iterations. [stated]"""
    lambda_end: float = 100.0
    """lambda at the end of the training. [stated]"""
    batch_norm: Literal["both", "generator", "none"] = "both"
    """Batch norm in the layers of generator and critic [stated: both]; the generators of images always have it."""
    noise: Literal["uniform", "normal"] = "uniform"
    """The generator's noise: uniform [stated] on [-1, 1] [open], or N(0, I)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, low in (("mover_steps", 1), ("mover_noise", 0), ("lambda_start", 0), ("lambda_end", 0), ("p", 1)):
            check_range(self, name, least=low)


class ThreePlayerWgan(Adversarial):
    """3P-WGAN (Dam et al. 2019, Eq. 10 or 9): a mover takes the place of the Lipschitz constraint.

    Players ``mover`` (h, if it is learned), ``critic`` (f, bounded by tanh) and ``generator`` (g).
    cost: c without lambda, [..., D] x [..., D] -> [...]; None takes ``config.cost``.
    """

    Config: ClassVar[Any] = ThreePlayerWganConfig
    fixed = True
    defaults: ClassVar[Any] = {"betas": (0.0, 0.9), "lr_decay": "linear"}
    notes: ClassVar[Mapping[str, str]] = {
        "score": "Mean score of moved samples, in (-1, 1).",
        "cost": "Mean cost of moving a sample, with its weight lambda.",
        "gap": "Mean score of the samples that stay minus that of the moved ones.",
    }

    cost_weight: Tensor

    def __init__(
        self, config: Any, generator: nn.Module, critic: nn.Module, mover: nn.Module, cost: Cost | None = None
    ) -> None:
        super().__init__(config, generator, critic)
        self.fixed = cost is None and config.cost in ("l2", "lp")  # of other costs nothing is known
        self._cost = cost
        if cost is None and config.cost in ("l2", "lp"):
            self._cost = make_cost(config.cost, config.p, config.cost_scale)
        # A tensor, which recorded operations read anew; no part of the state, as it follows from the step.
        self.register_buffer("cost_weight", torch.tensor(float(config.lambda_start)), persistent=False)
        self.order = (Turn("critic", fresh=False), Turn("generator", fresh=False))  # one batch per iteration
        if config.mover not in ("identity", "noisy-identity"):
            self.players["mover"] = mover
            self.order = (Turn("mover", config.mover_steps, fresh=False), *self.order)

    @classmethod
    def build(cls, config: ThreePlayerWganConfig, shape: tuple[int, ...]) -> ThreePlayerWgan:
        game = cls.rebuild(config, shape, {})
        if config.cost not in ("l2", "lp"):  # a wrong one is found before the training
            try_cost(game.cost, config.cost, math.prod(shape))
        return game

    @classmethod
    def rebuild(
        cls, config: ThreePlayerWganConfig, shape: tuple[int, ...], parts: Mapping[str, Any]
    ) -> ThreePlayerWgan:
        return cls(
            config,
            make_generator(config.networks, shape, batch_norm=config.batch_norm != "none"),
            make_critic(config.networks, shape, batch_norm=config.batch_norm == "both", bounded=True),
            make_mover(config.networks, shape),
        )

    def draw_noise(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        if self.config.noise == "normal":
            return super().draw_noise(n, generator)
        device = next(self.players["generator"].parameters()).device
        where = device if generator is None else generator.device
        return (2 * torch.rand(n, self.config.networks.noise_dim, generator=generator, device=where) - 1).to(device)

    def between(self, start: Tensor, end: Tensor, share: float) -> Tensor:
        """For uniform noise, the great circle between the normal numbers of the same quantiles: it stays uniform."""
        if self.config.noise == "normal":
            return super().between(start, end, share)
        tail = 2.0**-30  # -1 is among the draws; its normal number would be infinite
        first, last = (torch.special.ndtri((x.double().add(1) / 2).clamp(tail, 1 - tail)) for x in (start, end))
        return torch.special.ndtr(super().between(first, last, share)).mul(2).sub(1).to(start.dtype)

    @property
    def cost(self) -> Cost:
        """c without lambda. A MODULE:FUNCTION is imported when a loss first needs it, not to sample from an export."""
        if self._cost is None:
            self._cost = make_cost(self.config.cost, self.config.p, self.config.cost_scale)
        return self._cost

    def set_progress(self, done: float) -> None:
        """lambda rises linearly over the training (section 3.1)."""
        start, end = self.config.lambda_start, self.config.lambda_end
        self.cost_weight.fill_(start + (end - start) * done)

    def move(self, x: Tensor) -> Tensor:
        """h(x), shaped like x."""
        kind, noise = self.config.mover, self.config.mover_noise
        if kind in ("noisy-identity", "input-noise"):
            x = x + noise * self._noise_like(x)
        if "mover" in self.players:
            x = self.players["mover"](x)
        return x + noise * self._noise_like(x) if kind == "output-noise" else x

    def _noise_like(self, x: Tensor) -> Tensor:
        return self.processes.normal_like(x) if self.training else torch.randn_like(x)

    def pictures(self, real: Tensor, noise: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """What the mover makes of real images (Eq. 10; Fig. 3 of the paper) or of generated ones (Eq. 9)."""
        still = real if self.config.equation == 10 else self.sample(noise)
        return {**super().pictures(real, noise), "moved": (still, self.move(still))}

    def moving(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """E f(h(x)) and E c(h(x), x), the cost with its weight lambda."""
        moved = self.move(x)
        score = self.score(moved)
        batch = score.dim()
        cost = self.cost_weight * self.cost(full(moved).flatten(batch), full(x).flatten(batch))
        return score.mean(-1), cost.mean(-1)

    def mover_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Line 6 of Algorithm 1: -E f(h(x)) + E c(h(x), x), over real x (Eq. 10) or generated ones (Eq. 9)."""
        score, cost = self.moving(real if self.config.equation == 10 else self.fake(noise))
        return Loss(cost - score, {"score": score.detach(), "cost": cost.detach()})

    def critic_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Line 8: -E f(y) + E f(h(x)) (Eq. 10); for Eq. 9, -E f(x) + E f(h(y))."""
        fake = self.fake(noise)
        still, moving = (fake, real) if self.config.equation == 10 else (real, fake)
        with torch.no_grad():
            moved = self.move(moving)
        gap = self.score(still).mean(-1) - self.score(moved).mean(-1)
        return Loss(-gap, {"gap": gap.detach()})

    def generator_loss(self, real: Tensor, noise: Tensor) -> Loss:
        """Line 9: E f(y) (Eq. 10); for Eq. 9, -E f(h(y)) + E c(h(y), y)."""
        fake = self.sample(noise)
        if self.config.equation == 10:
            return Loss(self.score(fake).mean(-1))
        score, cost = self.moving(fake)
        return Loss(cost - score, {"score": score.detach(), "cost": cost.detach()})
