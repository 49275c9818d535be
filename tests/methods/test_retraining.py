"""Methods that learn from retrained models: planted truths come back, and impossible requests are refused."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV, KFold

from headwater import seeds
from headwater.attribution.experiment import Experiment
from headwater.attribution.sweep import sweep
from headwater.bank import Bank
from headwater.disk.store import FeatureStore
from headwater.errors import DataError, OptionError
from headwater.evaluate.lds import against
from headwater.methods import make
from headwater.methods.datamodel import Datamodel
from headwater.methods.empirical_if import EmpiricalIF
from headwater.scores import dense


def draw(name, *shape):
    return seeds.generator(0, "planted", name).standard_normal(shape)


@pytest.fixture
def planted(tmp_path, pictures):
    """A bank with the outcomes b − Σ_{i∈A} τ[q, i] + noise, and the true τ. Its first 40 subsets are to
    compare with."""

    def of(m, n=24, q=5, noise=0.0, compared=40, missing=()):
        train, queries = pictures(n, seed=1), pictures(q, seed=2)
        mask = np.array(
            [seeds.generator(0, "halves", i).permutation(n) < n // 2 for i in range(compared + m)]
        )
        τ = draw("scores", q, n)
        y = 3 - mask @ τ.T + noise * draw("noise", compared + m, q)
        outcomes = y[:, None].astype(np.float32)
        outcomes[list(missing)] = np.nan
        (tmp_path / "outcomes").mkdir(exist_ok=True)
        np.save(tmp_path / "outcomes.npy", outcomes)
        return Bank(tmp_path, {"recipe": {"subsets": compared}}, train, queries, mask), τ

    return of


def scores(method, bank, queries=None, block=None):
    store = FeatureStore(bank.folder / "store", block=block)
    return dense(
        method.score(method.fit(None, bank.train, store), bank.queries if queries is None else queries, store)
    )


def fitted(method, bank, train=None):
    return method.fit(None, bank.train if train is None else train, FeatureStore(bank.folder / "store"))


def about_its_mean(τ):
    """With exact halves all subsets have equally many images: only differences between images can be
    found."""
    return τ - τ.mean(axis=1, keepdims=True)


def test_the_datamodel_finds_a_planted_linear_truth(planted):
    bank, τ = planted(400)
    values = scores(Datamodel(bank=bank, alphas=(1e-6, 1.0)), bank)
    np.testing.assert_allclose(values, about_its_mean(τ), atol=1e-3)


def test_empirical_influence_finds_a_planted_linear_truth_as_subsets_grow_in_number(planted):
    errors = []
    for m in (200, 3200):
        bank, τ = planted(m)
        values = scores(EmpiricalIF(bank=bank), bank)
        # with i in a half, every other image is in it slightly less often
        expected = about_its_mean(τ) * 24 / 23
        errors.append(np.abs(values - expected).mean())
    assert errors[1] < 0.35 * errors[0]  # as 1/√m: a quarter
    assert errors[1] < 0.15


@pytest.mark.parametrize("name", ["empirical-if", "datamodel"])
def test_learned_scores_predict_models_they_never_saw(planted, name):
    bank, _ = planted(300, noise=0.3)
    assert against(bank, scores(make(name, {}, bank), bank).astype(np.float32)).per_query.mean() > 0.8


def test_the_datamodel_is_the_ridge_regression_of_another_library(planted):
    bank, _ = planted(60, noise=2.0)
    values = scores(Datamodel(bank=bank), bank)
    X, y = bank.subsets[40:].astype(float), bank.outcomes()[40:, 0].astype(float)
    chosen = []
    for q in range(y.shape[1]):
        search = GridSearchCV(Ridge(), {"alpha": [0.1, 1.0, 10.0]}, cv=KFold(5), scoring="r2").fit(X, y[:, q])
        chosen.append(search.best_params_["alpha"])
        np.testing.assert_allclose(values[q], -search.best_estimator_.coef_, rtol=1e-4, atol=1e-6)
    assert len(set(chosen)) > 1  # else the choice is not tested


def test_empirical_influence_is_a_difference_of_means(planted):
    bank, _ = planted(30, noise=1.0)
    mask, y = bank.subsets[40:], bank.outcomes()[40:, 0].astype(float)
    expected = [[y[~mask[:, i], q].mean() - y[mask[:, i], q].mean() for i in range(24)] for q in range(5)]
    np.testing.assert_allclose(scores(EmpiricalIF(bank=bank), bank), expected, rtol=1e-6, atol=1e-9)


def test_blocks_of_training_images_change_no_score(planted):
    bank, _ = planted(60, noise=1.0)
    for kind in (EmpiricalIF, Datamodel):
        expected = scores(kind(bank=bank), bank)
        np.testing.assert_allclose(scores(kind(bank=bank), bank, block=7), expected, rtol=1e-9, atol=1e-12)


def test_subsets_to_compare_with_are_never_learned_from_unless_named(planted):
    bank, _ = planted(30)
    assert fitted(EmpiricalIF(bank=bank), bank).rows == tuple(range(40, 70))
    assert fitted(EmpiricalIF(bank=bank, subsets=8), bank).rows == tuple(range(40, 48))
    assert EmpiricalIF(bank=bank, subsets=(3, 1)).resolved(
        fitted(EmpiricalIF(bank=bank, subsets=(3, 1)), bank)
    ) == {"subsets": [3, 1]}


def test_subsets_that_are_not_trained_are_left_out(planted):
    bank, _ = planted(30, missing=(41, 69))
    assert fitted(EmpiricalIF(bank=bank), bank).rows == (40, *range(42, 69))
    with pytest.raises(OptionError, match="41"):
        fitted(EmpiricalIF(bank=bank, subsets=(40, 41)), bank)


def test_queries_are_found_by_content_in_any_order(planted):
    bank, _ = planted(30, noise=1.0)
    in_order = scores(EmpiricalIF(bank=bank), bank)
    np.testing.assert_array_equal(
        scores(EmpiricalIF(bank=bank), bank, bank.queries.take([3, 0, 3])), in_order[[3, 0, 3]]
    )


def test_a_query_that_no_model_has_seen_is_named(planted, pictures):
    bank, _ = planted(30)
    with pytest.raises(DataError, match="have not seen 1 of the 1 queries") as error:
        scores(EmpiricalIF(bank=bank), bank, pictures(1, seed=9))
    assert "--add-queries" in error.value.hint


def test_other_training_images_are_refused(planted, pictures):
    bank, _ = planted(30)
    with pytest.raises(DataError, match="other training images"):
        fitted(EmpiricalIF(bank=bank), bank, pictures(24, seed=7))


@pytest.mark.parametrize("name", ["empirical-if", "datamodel"])
def test_without_a_bank_or_without_subsets_to_learn_from_it_says_what_to_do(planted, pictures, name):
    bank, _ = planted(0)
    with pytest.raises(OptionError, match="needs a `bank`") as error:
        fitted(make(name, {}), bank, pictures(3))
    assert "--bank" in error.value.hint
    with pytest.raises(OptionError, match=r"0 trained subsets to learn from; expected 2 or more") as error:
        fitted(make(name, {}, bank), bank)
    assert "--learning" in error.value.hint
    with pytest.raises(OptionError, match="the 7 that subsets asks for"):
        fitted(make(name, {"subsets": 7}, bank), bank)
    with pytest.raises(OptionError, match="subsets names 99"):
        fitted(make(name, {"subsets": (0, 99)}, bank), bank)
    with pytest.raises(OptionError, match="different"):
        fitted(make(name, {"subsets": (1, 1)}, bank), bank)


def test_an_image_that_is_in_every_subset_cannot_be_seen(planted):
    bank, _ = planted(30)
    bank.subsets[40:, 5] = True
    with pytest.raises(DataError, match="image 5 "):
        scores(EmpiricalIF(bank=bank), bank)


def test_a_sweep_compares_on_none_of_the_subsets_that_it_learned_from(planted, tmp_path):
    """Scores learned from pure noise predict that very noise well, and other noise not at all."""
    bank, _ = planted(0, noise=0.0)
    outcomes = draw("pure noise", 40, 5)[:, None].astype(np.float32)
    np.save(tmp_path / "outcomes.npy", outcomes)
    run = Experiment("datamodel", {"subsets": list(range(20))}, bank.train, bank.queries, (), bank)
    figures = sweep(run, {"folds": [2, 5]}, FeatureStore(tmp_path / "store"))
    assert all(abs(lds) < 0.4 for split in figures.splits.values() for lds in split.settings.values())
    several = sweep(
        run, {"subsets": [list(range(10)), list(range(10, 20))]}, FeatureStore(tmp_path / "store")
    )
    assert several.splits["all"].queries == 5


def test_a_choice_that_leaves_nothing_to_compare_with_is_refused_at_once(planted):
    bank, _ = planted(0)
    with pytest.raises(OptionError, match="all but 2 of the bank's subsets"):
        fitted(EmpiricalIF(bank=bank, subsets=tuple(range(38))), bank)


@pytest.mark.parametrize(
    "fields", [{"alphas": ()}, {"alphas": (1.0, 0.0)}, {"alphas": (float("nan"),)}, {"folds": 1}]
)
def test_settings_that_mean_nothing_are_refused(fields):
    with pytest.raises(OptionError, match=next(iter(fields))):
        Datamodel(**fields)


def test_more_folds_than_subsets_allow_are_refused(planted):
    bank, _ = planted(9)
    with pytest.raises(OptionError, match="folds is 5 with 9"):
        scores(Datamodel(bank=bank), bank)
