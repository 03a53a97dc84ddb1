import pytest
import torch

from models.forest import LatentTransformationForest


def make(**options):
    torch.manual_seed(0)
    return LatentTransformationForest(**{"dim": 2, "trees": 3, "depth": 2, **options})


def test_one_decision_node_is_a_sigmoid_blend_of_two_leaves():
    forest = make(dim=1, trees=1, depth=1, scale=2.0)
    with torch.no_grad():
        forest.leaves.copy_(torch.tensor([[[10.0], [-2.0]]]))
        forest.thresholds.fill_(0.5)
    p = torch.sigmoid(torch.tensor(2 * 0.75 - 0.5))  # left share of z = 0.75: scale * z - threshold
    torch.testing.assert_close(forest(torch.tensor([[0.75]])), (p * 10 - (1 - p) * 2).reshape(1, 1))


def test_equal_leaves_make_the_forest_constant():
    forest = make(out_dim=5)
    with torch.no_grad():
        forest.leaves.copy_(torch.arange(5.0).expand_as(forest.leaves))
    # Routes sum to 1 up to the rounding of D products and T * 2^D terms: far below 1e-5 for these sizes.
    torch.testing.assert_close(forest(torch.randn(7, 2)), torch.arange(5.0).expand(7, 5), atol=1e-5, rtol=0)


def test_only_leaves_are_parameters_unless_thresholds_are_learned():
    assert [name for name, _ in make().named_parameters()] == ["leaves"]
    assert {name for name, _ in make(learn_thresholds=True).named_parameters()} == {"leaves", "thresholds"}


def test_learned_thresholds_receive_a_gradient():
    forest = make(learn_thresholds=True)
    forest(torch.randn(4, 2)).square().sum().backward()
    assert forest.thresholds.grad.abs().min() > 0


def test_thresholds_are_values_of_their_own_feature():
    forest = make(dim=3, trees=5, depth=3, scale=4.0)
    latents = torch.randn(6, 3) + torch.tensor([0.0, 100.0, 200.0])
    forest.set_thresholds(latents)
    drawn = forest.thresholds.flatten()
    for node, threshold in enumerate(drawn):
        assert (4.0 * latents[:, node % 3] == threshold).any(), f"node {node}"
    assert len(drawn[::3].unique()) > 1


def test_fitted_leaves_bring_the_forest_near_the_target_map():
    forest = make(trees=16, depth=3, scale=2.0)
    latents = torch.randn(256, 2)
    forest.set_thresholds(latents)
    forest.set_leaves(latents, latents)
    error = (forest(latents) - latents).square().mean()
    assert error < 0.01 * latents.var(), error
    forest.set_leaves(latents, -latents.flip(1))
    assert (forest(latents) + latents.flip(1)).square().mean() < 0.01 * latents.var()


def test_an_identity_fitted_to_a_small_batch_holds_beyond_it():
    forest = make(trees=16, depth=3)
    forest.set_thresholds(torch.randn(8, 2))
    forest.set_identity(torch.randn(8, 2) * 2 + 1)
    fresh = torch.randn(1000, 2) * 1.5 + 1
    error = (forest(fresh) - fresh).square().mean()
    assert error < 0.05 * fresh.var(), error


def test_an_identity_fitted_to_equal_latents_returns_them():
    forest = make()
    latents = torch.full((1, 2), 3.0)
    forest.set_identity(latents)
    torch.testing.assert_close(forest(latents), latents, atol=0.01, rtol=0)  # up to the ridge of 1e-3


def test_fitted_leaves_solve_the_ridge_problem():
    forest = make(trees=2, depth=2)
    latents, targets, ridge = torch.randn(9, 2), torch.randn(9, 2), 0.1
    forest.set_leaves(latents, targets, ridge)
    routes = torch.stack(  # column (t, l) of A is F with leaf (t, l) one and the others zero
        [_with_one_leaf(forest, latents, t, leaf) for t in range(2) for leaf in range(4)], dim=1
    ).double()
    weight = ridge * (routes @ routes.T).diagonal().mean()
    normal = routes.T @ routes + weight * torch.eye(8, dtype=torch.float64)
    expected = torch.linalg.solve(normal, routes.T @ targets.double())
    # Routes are float32 (2^-24 relative); the system's condition number is below 1 / ridge * N = 90.
    torch.testing.assert_close(forest.leaves.detach().reshape(8, 2), expected.float(), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def _with_one_leaf(forest, latents, tree, leaf):
    probe = make(trees=2, depth=2, out_dim=1)
    probe.thresholds.copy_(forest.thresholds)
    probe.leaves.zero_()
    probe.leaves[tree, leaf] = 1
    return probe(latents)[:, 0]


def test_a_single_latent_and_a_deep_tree_work():
    forest = make(depth=12, trees=1)
    latents = torch.randn(1, 2)
    forest.set_thresholds(latents)
    forest.set_leaves(latents, latents)
    # Exact up to the ridge of 1e-3.
    torch.testing.assert_close(forest(latents), latents, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("pairing", ["cover", "literal"])
def test_fit_takes_the_optimizer_s_steps(pairing):
    """Algorithm 1 by autograd and torch.optim.Adam, then fit, then Adam again: one state, whoever steps.

    Adam divides by sqrt(v), so that float32 sums in another order show as up to 1e-4 of a step; here 7 steps of 0.05.
    """
    fused, plain = make(scale=2.0), make(scale=2.0)
    ours, theirs = (torch.optim.Adam(f.parameters(), lr=0.05, betas=(0.5, 0.9), fused=True) for f in (fused, plain))
    z_r, z_g = torch.randn(12, 2), torch.randn(12, 2)

    def by_autograd(forest, optimizer, steps):
        for _ in range(steps):
            transformed = forest(z_g)
            index = torch.cdist(z_r, transformed).argmin(1)
            pairs = (z_r, transformed[index]) if pairing == "cover" else (z_r[index], transformed)
            loss = (pairs[0] - pairs[1]).square().sum(1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return index, loss

    by_autograd(fused, ours, 2)
    assert fused.fits(ours)
    fitted = fused.fit(z_r, z_g, ours, 3, pairing)
    by_autograd(fused, ours, 2)
    by_autograd(plain, theirs, 2)
    index, loss = by_autograd(plain, theirs, 3)
    by_autograd(plain, theirs, 2)
    assert torch.equal(fitted.index, index)
    torch.testing.assert_close(fitted.cost[-1], loss.detach(), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(fused.leaves, plain.leaves, atol=1e-4, rtol=0)
    assert ours.state[fused.leaves]["step"] == 7


def test_fit_starts_adam_s_state():
    forest = make()
    optimizer = torch.optim.Adam(forest.parameters(), lr=0.01)
    before = forest.leaves.detach().clone()
    forest.fit(torch.randn(5, 2), torch.randn(5, 2), optimizer, 2)
    assert optimizer.state[forest.leaves]["step"] == 2
    # with betas (0.9, 0.999) the first two steps are lr long wherever the gradient keeps its sign
    assert 0.005 < (forest.leaves - before).abs().median() <= 0.0201


def test_fit_knows_what_it_cannot_replace():
    def fits(forest, optimizer=torch.optim.Adam, **options):
        return forest.fits(optimizer(forest.parameters(), **options))

    assert fits(make())
    assert not fits(make(), torch.optim.AdamW)
    assert not fits(make(), torch.optim.SGD)
    assert not fits(make(), weight_decay=0.1)
    assert not fits(make(), amsgrad=True)
    assert not fits(make(), maximize=True)
    assert not fits(make(), lr=torch.tensor(0.1))
    assert not fits(make(learn_thresholds=True))
    forest = make()
    assert not forest.fits(torch.optim.Adam(make().parameters()))
    optimizer = torch.optim.Adam(forest.parameters())
    optimizer.state[forest.leaves]["step"] = torch.zeros((), dtype=torch.float64)
    assert not forest.fits(optimizer)


@pytest.mark.parametrize("learn", [False, True])
def test_state_round_trip(learn):
    forest, other = make(learn_thresholds=learn), LatentTransformationForest(2, 3, 2, learn_thresholds=learn)
    forest.set_thresholds(torch.randn(10, 2))
    other.load_state_dict(forest.state_dict())
    z = torch.randn(5, 2)
    assert torch.equal(forest(z), other(z))


@pytest.mark.parametrize("shape", [(2,), (0, 2), (4, 3)])
def test_bad_latents_are_named(shape):
    with pytest.raises(ValueError, match=r"latents must be \[N, 2\] with N >= 1, got \["):
        make().set_thresholds(torch.zeros(shape))
