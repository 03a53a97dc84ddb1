"""The Latent Transformation Forest of POT-GAN (Avraham et al. 2019, section 4.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from models.plain_adam import not_plain_adam
from otkernels import AdamState, FitTransport, TransportCost, fit_transport, soft_forest, transport_cost
from otkernels.nn import SoftForest


class LatentTransformationForest(SoftForest):
    """F, the learnable part of the cost |z_r - F(z_g)|^2 (Eq. 15): a soft forest with initialisers and Algorithm 1.

    Leaves and thresholds get a leading dimension of runs from ``models.stack``.
    """

    def fits(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether ``fit`` plays ``optimizer``'s steps: plain Adam, on nothing but this forest's leaves."""
        return not not_plain_adam(optimizer, self.leaves)

    @torch.no_grad()
    def fit(
        self, z_r: Tensor, z_g: Tensor, optimizer: torch.optim.Optimizer, iters: int, pairing: str = "cover"
    ) -> FitTransport:
        """Algorithm 1 in one call (`otkernels.fit_transport`): ``iters`` Adam steps on the leaves, pairs and costs.

        z_r [..., N, out_dim] and z_g [..., M, dim], computed in the leaves' dtype. Adam's settings and state are
        ``optimizer``'s, as if it had taken the steps. ValueError, with nothing changed, for an optimizer that does not
        step like that (``fits`` tells) and for inputs of another shape.
        """
        if found := not_plain_adam(optimizer, self.leaves):
            raise ValueError(f"LatentTransformationForest.fit: plays plain Adam on the leaves alone, got {found}")
        self._check_rows("z_r", z_r, "N", self.out_dim)
        self._check_rows("z_g", z_g, "M", self.dim)
        group, leaves = optimizer.param_groups[0], self.leaves
        known = optimizer.state.get(leaves)
        state = AdamState(*(known[name] for name in AdamState._fields)) if known else AdamState.zeros_like(leaves)
        fitted = fit_transport(
            z_r.to(leaves.dtype), (z_g * self.scale).to(leaves.dtype), self.thresholds, leaves, state,
            iters=iters, lr=group["lr"], betas=group["betas"], eps=group["eps"], pairing=pairing,
        )  # fmt: skip
        if not known:
            optimizer.state[leaves] = state._asdict()
        return fitted

    def cost(self, z_r: Tensor, z_g: Tensor, pairing: str = "cover") -> TransportCost:
        """What latents pay for transport by F as it is (`otkernels.transport_cost`); its gradient reaches z_g alone.

        z_r [..., N, out_dim] and z_g [..., M, dim], computed in the leaves' dtype. ValueError for another shape.
        """
        self._check_rows("z_r", z_r, "N", self.out_dim)
        self._check_rows("z_g", z_g, "M", self.dim)
        dtype = self.leaves.dtype
        z_g = z_g if self.scale == 1 else z_g * self.scale
        thresholds, leaves = self.thresholds.detach(), self.leaves.detach()
        return transport_cost(z_r.detach().to(dtype), z_g.to(dtype), thresholds, leaves, pairing=pairing)

    @torch.no_grad()
    def set_thresholds(self, latents: Tensor) -> None:
        """Draw each node's threshold from the values that its feature takes in ``latents`` [..., N, dim]."""
        self._check_latents("latents", latents, self.dim)
        nodes = self.trees * (2**self.depth - 1)
        feature = torch.arange(nodes, device=latents.device) % self.dim
        row = torch.randint(latents.shape[-2], (*latents.shape[:-2], nodes), device=latents.device)
        drawn = latents[..., feature].take_along_dim(row[..., None, :], -2)  # [..., 1, nodes]
        self.thresholds.copy_((self.scale * drawn).view_as(self.thresholds))

    @torch.no_grad()
    def set_leaves(self, latents: Tensor, targets: Tensor, ridge: float = 1e-3) -> None:
        """Fit the leaves by ridge regression: F(latents) ~ targets, for [..., N, dim] and targets [..., N, out_dim].

        F is linear in the leaves. With routes A [N, trees * 2^depth] and F = A leaves, the solution is
        A^T (A A^T + ridge * tr(A A^T) / N)^-1 targets: an N-by-N system however deep the trees are.
        """
        self._check_latents("latents", latents, self.dim)
        self._check_latents("targets", targets, self.out_dim)
        routes = self._routes(latents).double()
        gram = routes @ routes.mT  # [..., N, N]
        diagonal = gram.diagonal(dim1=-2, dim2=-1)
        diagonal.add_(ridge * diagonal.mean(-1, keepdim=True))
        # Positive definite. (A batched LU on several CPU threads fails in PyTorch, its issue 142815.)
        factor, _ = torch.linalg.cholesky_ex(gram)  # NaN latents give NaN leaves, not an error
        leaves = routes.mT @ torch.cholesky_solve(targets.double(), factor)
        self.leaves.copy_(leaves.view_as(self.leaves))

    @torch.no_grad()
    def set_identity(self, latents: Tensor, samples: int = 1024) -> None:
        """Fit the leaves so that F(z) ~ z where ``latents`` [..., N, dim] live; needs out_dim = dim.

        The fit is on draws of a normal distribution with the latents' mean and variances: it reaches between and
        around them, where generated latents are early in training, and a small batch would leave F unknown.
        """
        self._check_latents("latents", latents, self.dim)
        noise = torch.randn(*latents.shape[:-2], samples, self.dim, dtype=latents.dtype, device=latents.device)
        draws = latents.mean(-2, keepdim=True) + latents.std(-2, correction=0, keepdim=True) * noise
        self.set_leaves(draws, draws)

    def _routes(self, latents: Tensor) -> Tensor:
        """The matrix A of F = A leaves [..., N, trees * 2^depth]: each tree alone, with one-hot leaves."""
        size = 2**self.depth
        routes = latents.new_empty(*latents.shape[:-1], self.trees, size)
        one_hot = torch.eye(size, dtype=latents.dtype, device=latents.device)
        one_hot = one_hot.expand(*self.leaves.shape[:-3], 1, size, size)
        nodes = size - 1
        feature = torch.arange(self.trees * nodes, device=latents.device) % self.dim
        for tree in range(self.trees):
            own = slice(tree * nodes, (tree + 1) * nodes)
            z = self.scale * latents[..., feature[own]]  # [..., N, nodes]
            routes[..., tree, :] = soft_forest(z, self.thresholds[..., tree : tree + 1, :], one_hot)
        return routes.flatten(-2) / self.trees

    def _check_latents(self, name: str, latents: Tensor, dim: int) -> None:
        runs = list(self.leaves.shape[:-3])
        if latents.dim() != len(runs) + 2 or latents.shape[-1] != dim or latents.shape[-2] == 0:
            shape = ", ".join(map(str, [*runs, "N", dim]))
            raise ValueError(
                f"LatentTransformationForest: {name} must be [{shape}] with N >= 1, got {list(latents.shape)}"
            )
