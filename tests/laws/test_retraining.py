"""A linear denoiser, where retraining has a closed form: influence must converge to exact leave-one-out."""

import numpy as np
import pytest
import torch
from torch import nn

from headwater.curvature.factors import factors
from headwater.curvature.fisher import Fisher
from headwater.curvature.ggn import ggn
from headwater.curvature.kfac import kfac
from headwater.diffusion.denoiser import Denoiser
from headwater.diffusion.draws import Draws
from headwater.diffusion.measure import simple
from headwater.diffusion.schedule import linear
from headwater.disk.store import FeatureStore
from headwater.examples import Examples
from headwater.gradients.vmap import gradients
from headwater.linalg.damping import Damping
from headwater.linalg.kron import whole
from headwater.linalg.rank import spearman
from headwater.methods import make
from headwater.scores import dense

DRAWS = Draws((200, 500, 800), noises=4)
PIXELS = 4


class Linear(nn.Module):
    """ε̂ = W x_t + b, the same for every t."""

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(PIXELS, PIXELS, dtype=torch.float64)

    def forward(self, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return self.map(x_t.flatten(1)).view_as(x_t)


def pictures(n: int, key: int) -> Examples:
    """Correlated pixels, so that the best linear denoiser is not trivial."""
    random = np.random.Generator(np.random.Philox(key))
    mixed = random.standard_normal((n, PIXELS)) @ np.array(
        [[1, 0.8, 0.2, 0], [0, 0.6, 0.5, 0.1], [0, 0, 0.8, 0.4], [0, 0, 0, 0.7]]
    )
    return Examples(np.clip(128 + 40 * mixed, 0, 255).astype(np.uint8).reshape(n, 2, 2, 1))


def design(examples: Examples) -> tuple[np.ndarray, np.ndarray]:
    """Inputs [n, d, 5] (x_t and a one) and targets [n, d, 4] of every example's draws."""
    draw = DRAWS.of(examples, slice(0, len(examples)), linear(), torch.zeros((), dtype=torch.float64))
    inputs = draw.x_t.flatten(2).numpy()
    return np.concatenate([inputs, np.ones_like(inputs[..., :1])], -1), draw.noise.flatten(2).numpy()


def solved(inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The least-squares weights [5, 4], the result of training to convergence."""
    return np.linalg.lstsq(inputs.reshape(-1, inputs.shape[-1]), targets.reshape(-1, PIXELS), rcond=None)[0]


def loss(weights: np.ndarray, inputs: np.ndarray, targets: np.ndarray) -> np.ndarray:
    return np.square(inputs @ weights - targets).mean((1, 2))


def denoiser(weights: np.ndarray) -> Denoiser:
    module = Linear()
    module.map.weight.data = torch.as_tensor(weights[:-1].T.copy())
    module.map.bias.data = torch.as_tensor(weights[-1].copy())
    return Denoiser(module, linear(), (1, 2, 2), fingerprint=f"linear-{weights.sum():.15f}")


def leave_one_out(train: Examples, queries: Examples) -> np.ndarray:
    """τ[q, i] = m(q; D∖i) − m(q; D) by really solving every least-squares problem."""
    inputs, targets = design(train)
    query = design(queries)
    base = loss(solved(inputs, targets), *query)
    masks = [np.arange(len(train)) != i for i in range(len(train))]
    return np.stack([loss(solved(inputs[mask], targets[mask]), *query) - base for mask in masks], axis=1)


def influence(train: Examples, queries: Examples) -> np.ndarray:
    """τ = (1/n) ∇m(q)ᵀ G⁻¹ ∇ℓ(i) with the exact Gauss–Newton matrix G of the mean loss and our own
    gradients."""
    inputs, targets = design(train)
    model = denoiser(solved(inputs, targets))
    g_train, g_query = (torch.cat(list(gradients(model, e, simple, DRAWS))).numpy() for e in (train, queries))
    z = inputs.reshape(-1, inputs.shape[-1])
    moment = 2 / PIXELS * z.T @ z / len(z)  # the Hessian of each output pixel's weights
    ggn = np.zeros((PIXELS * 5, PIXELS * 5))  # parameters in order: weight [4, 4] row by row, then bias [4]
    place = np.concatenate([np.arange(16).reshape(4, 4), 16 + np.arange(4)[:, None]], axis=1)
    for row in place:
        ggn[np.ix_(row, row)] = moment
    return g_query @ np.linalg.solve(ggn, g_train.T) / len(train)


def test_influence_converges_to_exact_leave_one_out_as_the_training_set_grows():
    queries = pictures(6, key=99)
    errors = []
    for n in (60, 240, 960):
        train = pictures(n, key=n)
        exact = leave_one_out(train, queries)
        errors.append(np.linalg.norm(influence(train, queries) - exact) / np.linalg.norm(exact))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def operators(train: Examples, queries: Examples) -> dict[str, np.ndarray]:
    """τ = (1/n) ∇m(q)ᵀ (G + λI)⁻¹ ∇ℓ(i) by the exact operator, and by K-FAC, which equals it here up to
    sampling."""
    model = denoiser(solved(*design(train)))
    g_train, g_query = (
        torch.cat(list(gradients(model, e, simple, DRAWS, batch=64))) for e in (train, queries)
    )
    exact = whole(ggn(model, train, DRAWS, batch=64))
    factored = kfac(model, factors(model, train, Fisher(draws=DRAWS), joint=True))
    by_name = {"exact": exact, "k-fac": factored}
    solve = {name: operator.solve(g_query, Damping(1e-9)) for name, operator in by_name.items()}
    return {name: (x @ g_train.T / len(train)).numpy() for name, x in solve.items()}


def test_influence_by_the_exact_operator_converges_to_leave_one_out_and_k_fac_comes_near():
    queries, errors = pictures(6, key=99), []
    for n in (60, 240):
        train = pictures(n, key=n)
        exact, scores = leave_one_out(train, queries), operators(train, queries)
        np.testing.assert_allclose(scores["exact"], influence(train, queries), rtol=1e-5, atol=1e-9)
        errors.append({name: np.linalg.norm(τ - exact) / np.linalg.norm(exact) for name, τ in scores.items()})
    assert errors[1]["exact"] < errors[0]["exact"] / 2
    assert errors[1]["exact"] < 0.05 and errors[1]["k-fac"] < 0.1


def test_removing_a_training_image_raises_its_own_loss_and_its_influence_says_so():
    train = pictures(60, key=60)
    assert (influence(train, train).diagonal() > 0).all()
    assert (leave_one_out(train, train).diagonal() > 0).all()


@pytest.mark.parametrize("name", ["trak", "gradient"])
def test_scores_of_methods_have_the_sign_of_exact_leave_one_out(name, tmp_path):
    """End to end: clearly positive rank correlation. Not near 1: TRAK's kernel is the empirical Fisher, not
    the GGN."""
    train, queries = pictures(240, key=240), pictures(6, key=99)
    method = make(
        name,
        {"timesteps": [200, 500, 800], "noises": 4, "projector": "none"}
        | ({"damping": 1e-3} if name == "trak" else {}),
    )
    store, model = FeatureStore(tmp_path), denoiser(solved(*design(train)))
    scores = dense(method.score(method.fit(model, train, store), queries, store))
    assert (spearman(scores, leave_one_out(train, queries)) > 0.25).all()
