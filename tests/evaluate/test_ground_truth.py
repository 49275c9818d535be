"""Runs against a bank whose outcomes are linear in the subset but for noise that seeds do not share."""

import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from headwater.bank import open_bank
from headwater.disk.npz import write_examples
from headwater.errors import DataError, NonFiniteError, OptionError
from headwater.evaluate.ground_truth import chance, ground_truth, of_run, of_runs
from headwater.evaluate.lds import against, ceiling, oracle, reachable
from headwater.examples import Examples
from headwater.pages.page import report

N, Q, M = 40, 30, 128


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(0))


@pytest.fixture
def planted(tmp_path, random):
    """(bank, τ): noise as large as the signal, so that seeds agree by about a half."""

    def make(seeds=3, name="bank"):
        folder = tmp_path / name
        (folder / "outcomes").mkdir(parents=True)
        tau = random.standard_normal((Q, N)).astype(np.float32)
        subsets = random.permuted(np.tile(np.arange(N) < N // 2, (M, 1)), axis=1)
        signal = -(subsets @ tau.T)[:, None]
        outcomes = signal + signal.std(0) * random.standard_normal((M, seeds, Q))
        np.save(folder / "subsets.npy", subsets)
        np.save(folder / "outcomes.npy", outcomes.astype(np.float32))
        np.save(folder / "full.npy", outcomes[0].astype(np.float32))
        np.save(folder / "outcomes" / "elbo.npy", -outcomes.astype(np.float32))
        write_examples(folder / "train.npz", Examples(pictures(random, N)))
        write_examples(
            folder / "queries.npz", Examples(pictures(random, Q), split=("val",) * 20 + ("gen",) * 10)
        )
        (folder / "bank.json").write_text(json.dumps({"recipe": {"subsets": M}}))
        return open_bank(folder), tau

    return make


def pictures(random, count):
    return random.integers(0, 256, (count, 4, 4, 1), np.uint8)


@pytest.fixture
def run_of(tmp_path):
    """Write a run folder of scores for (some) queries of a bank."""

    def write(bank, scores, name="run", rows=None, **info):
        rows = np.arange(Q) if rows is None else np.asarray(rows)
        folder = tmp_path / name
        folder.mkdir()
        np.save(folder / "scores.npy", scores[rows].astype(np.float32))
        np.save(folder / "self.npy", np.ones(N, np.float32))
        ids = {"train_ids": np.array(bank.train.ids), "query_ids": np.array(bank.queries.ids)[rows]}
        images = {"train_images": bank.train.images, "query_images": bank.queries.images[rows]}
        np.savez(folder / "pictures.npz", **ids, **images, train_rows=np.arange(N))
        (folder / "run.json").write_text(json.dumps({"method": name, "signed": True} | info))
        return folder

    return write


def test_the_true_scores_get_as_far_as_can_be_reached(planted):
    bank, tau = planted(seeds=3)
    figures, agreement = against(bank, tau), ceiling(bank)
    assert agreement is not None
    rho = agreement.per_query.mean()
    assert rho == pytest.approx(
        6 / np.pi * np.arcsin(0.25), abs=2 * agreement.standard_error()
    )  # Spearman's where Pearson's correlation is ½
    assert figures.per_query.mean() == pytest.approx(reachable(rho, 3), abs=2 * figures.standard_error())


def test_a_retraining_predicts_the_mean_of_the_others_better_than_one_other(planted):
    bank, tau = planted(seeds=3)
    agreement, one = ceiling(bank), oracle(bank)
    assert agreement is not None and one is not None
    assert agreement.mean().high < one.mean().low
    assert one.mean().high < against(bank, tau).mean().low


def test_the_oracle_is_each_seed_against_the_mean_of_the_others(planted):
    bank, _ = planted(seeds=4)
    y, one = bank.finished(), oracle(bank)
    assert one is not None
    seeds = [
        [spearmanr(y[:, s, q], np.delete(y, s, axis=1)[:, :, q].mean(1)).statistic for q in range(Q)]
        for s in range(4)
    ]
    np.testing.assert_allclose(one.per_query, np.mean(seeds, axis=0), atol=1e-12)


def test_with_two_seeds_the_oracle_is_the_ceiling(planted):
    bank, _ = planted(seeds=2)
    agreement, one = ceiling(bank), oracle(bank)
    assert agreement is not None and one is not None
    np.testing.assert_allclose(one.per_query, agreement.per_query, atol=1e-15)
    assert one.mean() == pytest.approx(agreement.mean(), abs=1e-15)


def test_a_single_seed_has_neither_ceiling_nor_oracle(planted):
    bank, tau = planted(seeds=1)
    assert ceiling(bank) is None and oracle(bank) is None
    assert not {"ceiling", "oracle", "reachable"} & ground_truth(bank, tau).as_json()["splits"]["val"].keys()


def test_perfect_agreement_is_reached_and_none_is_not():
    assert (reachable(1.0, 2), reachable(0.0, 2), reachable(-1.0, 2)) == (1, 0, 0)
    assert reachable(0.5, 1) == np.sqrt(0.5)


def test_only_negated_scores_are_called_negated(planted, random):
    bank, tau = planted(seeds=2)
    assert ground_truth(bank, tau).sign == "right"
    assert ground_truth(bank, -tau).sign == "negated"
    assert ground_truth(bank, random.standard_normal(tau.shape).astype(np.float32)).sign == "unclear"
    assert ground_truth(bank, -tau, signed=False).sign is None


def test_subsets_left_out_are_neither_predicted_nor_part_of_the_ceiling(planted, tmp_path):
    bank, tau = planted(seeds=2)
    record = ground_truth(bank, tau, leave_out=range(90, M)).as_json()
    assert (record["subsets"], record["left_out"]) == (90, list(range(90, M)))
    y = bank.finished()[:90]
    assert record["splits"]["val"]["ceiling"] == pytest.approx(
        np.mean([spearmanr(y[:, 0, q], y[:, 1, q]).statistic for q in range(20)]), abs=1e-4
    )


def test_the_record_of_a_run_holds_what_pairs_it_with_another(planted):
    bank, tau = planted(seeds=2)
    row, lds = ground_truth(bank, tau).as_json()["splits"]["gen"], against(bank, tau)
    gen = np.arange(Q) >= 20
    np.testing.assert_allclose(row["each"], lds.per_query[gen], atol=1e-4)
    np.testing.assert_allclose(row["resampled"], lds.bootstrap[:, gen].mean(1), atol=1e-5)
    assert (row["low"], row["high"]) == pytest.approx(np.percentile(row["resampled"], [2.5, 97.5]), abs=1e-4)


def test_random_scores_made_in_parts_are_the_random_methods(planted):
    bank, _ = planted()
    np.testing.assert_array_equal(chance(bank, block=7 * Q), chance(bank))


def test_a_run_has_the_lds_of_its_scores_whatever_the_order_of_its_queries(planted, run_of):
    bank, tau = planted()
    rows = [25, 3, 0, 29, 7]
    figures = of_run(run_of(bank, tau, rows=rows), bank)
    np.testing.assert_allclose(figures.per_query, against(bank, tau).per_query[rows], atol=1e-4)
    assert {name: split.queries for name, split in figures.splits.items()} == {"gen": 2, "val": 3}


def test_several_runs_are_compared_on_the_queries_and_subsets_that_they_share(planted, run_of, random):
    bank, tau = planted()
    one = run_of(bank, tau, "one", rows=[4, 2, 0, 21, 22], resolved={"subsets": [0, 1]})
    two = run_of(
        bank, tau + random.standard_normal(tau.shape), "two", rows=[22, 0, 2, 9], resolved={"subsets": [1, 5]}
    )
    figures = of_runs([one, two], bank)
    assert [figures.runs[str(run)].subsets for run in (one, two)] == [M - 3] * 2
    np.testing.assert_allclose(
        figures.runs[str(one)].per_query, against(bank, tau, [0, 1, 5]).per_query[[2, 0, 22]], atol=1e-4
    )
    assert [(pair.a, pair.b, pair.split) for pair in figures.pairs] == [
        (str(one), str(two), s) for s in ("val", "gen")
    ]


def test_a_run_paired_with_a_copy_of_itself_differs_by_nothing(planted, run_of):
    bank, tau = planted()
    for row in of_runs([run_of(bank, tau, "one"), run_of(bank, tau, "two")], bank).as_json()["paired"]:
        assert (row["difference"], row["over_subsets"], row["over_queries"]) == (0, [0, 0], [0, 0])
        assert row["above"] == row["below"] == 0


def test_another_measurement_is_another_truth(planted, run_of):
    bank, tau = planted()
    run = run_of(bank, tau)  # the bank's elbo is −simple
    assert of_run(run, bank, "elbo").splits["val"].lds.mean == -of_run(run, bank).splits["val"].lds.mean
    assert of_run(run, bank, "elbo").sign == "negated"


def test_what_cannot_be_compared_is_told_plainly(planted, run_of, random):
    bank, tau = planted()
    run, apart = run_of(bank, tau, rows=[0, 1]), run_of(bank, tau, "apart", rows=[2])
    with pytest.raises(DataError, match=r"no outcomes for 'trajectory'\. It has: simple, elbo"):
        of_run(run, bank, "trajectory")
    with pytest.raises(OptionError, match=r"resampling over 'seeds'.*queries, subsets"):
        of_run(run, bank, over="seeds")
    with pytest.raises(DataError, match="share no query"):
        of_runs([run, apart], bank)
    second, _ = planted(name="second")
    with pytest.raises(DataError, match="not the bank's 40 ") as refusal:
        of_run(run, second)
    assert refusal.value.hint.endswith("second/train.npz.")
    np.save(bank.folder / "outcomes" / "elbo.npy", np.full((M, 3, Q), np.nan, np.float32))
    with pytest.raises(NonFiniteError, match="'elbo' hold NaN"):
        of_run(run, bank, "elbo")
    np.save(bank.folder / "outcomes" / "per-timestep.npy", np.zeros((M, 3, Q, 5), np.float16))
    with pytest.raises(DataError, match="several numbers a query"):
        of_run(run, bank, "per-timestep")


def test_the_page_of_two_runs_says_which_leads_by_the_paired_difference(planted, run_of):
    bank, tau = planted()
    methods = {"best": tau, "worse": tau + tau[::-1]}
    runs = [
        run_of(bank, scores, name, ground_truth=ground_truth(bank, scores).as_json())
        for name, scores in methods.items()
    ]
    page = report(runs).read_text().replace("\N{NO-BREAK SPACE}", " ")
    for row, split in zip(of_runs(runs, bank).as_json()["paired"], ("held-out", "generated"), strict=True):
        low, high = row["over_subsets"]
        interval = f"{row['difference']:.2f}, {low:.2f} to {high:.2f}"
        assert f"<b>On the {split} pictures,</b> best is ahead of worse (by {interval};" in page
    assert page.count('class="bar strip"') == 4 and "Which method is ahead?" in page
    assert "resampled" not in page


@pytest.fixture
def printed(command):
    """The text that `headwater lds` prints."""

    def run(*words):
        code, out, err = command("lds", *words)
        assert code == 0, err
        return out

    return run


def test_the_command_prints_one_run_as_itself_and_several_as_runs_and_pairs(planted, run_of, printed):
    bank, tau = planted()
    one, two = run_of(bank, tau, "one"), run_of(bank, tau + 0.5 * tau[::-1], "two")
    alone = json.loads(printed(one, bank.folder, "--json"))
    keys = {
        "queries",
        "lds",
        "low",
        "high",
        "random",
        "random_low",
        "random_high",
        "ceiling",
        "ceiling_low",
        "ceiling_high",
    }
    assert keys | {"reachable"} <= alone["splits"]["val"].keys()
    assert {"bank", "measurement", "subsets", "seeds", "splits", "per_query"} <= alone.keys()
    both = json.loads(printed(one, two, bank.folder, "--json"))
    assert both["runs"][str(one)] == alone and len(both["paired"]) == 2


def test_the_table_has_every_run_chance_another_retraining_and_the_lead(planted, run_of, printed):
    bank, tau = planted()
    best, worse = run_of(bank, tau, "best"), run_of(bank, tau + tau[::-1], "worse")
    text = printed(worse, best, bank.folder)
    for words in (
        str(best),
        str(worse),
        "random scores",
        "another retraining",
        "perfect scores",
        "95 % over subsets",
    ):
        assert text.count(words) >= 2
    assert f"{best} − {worse}: +" in text and f"{worse} −" not in text
    assert "negated" not in text
    assert "95 % over queries" in printed(best, bank.folder, "--over", "queries")


def test_the_table_says_so_where_scores_are_negated(planted, run_of, printed):
    bank, tau = planted()
    assert "predicts the opposite of what happens" in printed(run_of(bank, -tau), bank.folder)
