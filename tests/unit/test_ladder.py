"""The scaling law's fit, and the ladder that it is fitted to."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import approx_fprime, minimize_scalar

from llmbook.experiments import ladder, sweep
from llmbook.experiments.ladder import Law, laws, rungs, runs
from llmbook.experiments.sweep import Group

CHINCHILLA = Law(E=1.69, A=406.4, B=410.7, alpha=0.34, beta=0.28)  # Hoffmann et al. 2022, approach 3, as printed


def grid(law, noise=0.0, seed=0):
    """(N, D, L) of a law on a grid of sizes, its logs disturbed."""
    N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e6, 1e10, 6), np.geomspace(1e8, 1e12, 6)))
    return N, D, law(N, D) * np.exp(noise * np.random.default_rng(seed).normal(size=N.size))


# ------------------------------------------------------------ the law


def test_the_law_by_hand():
    assert Law(1.0, 8.0, 9.0, 1 / 3, 0.5)(8**3, 81) == pytest.approx(1 + 8 / 8 + 9 / 9)
    assert CHINCHILLA(70e9, 1.4e12) == pytest.approx(1.69 + 406.4 / 70e9**0.34 + 410.7 / 1.4e12**0.28)


def test_a_law_without_noise_is_recovered():
    fitted = ladder.fit_law(*grid(CHINCHILLA))
    assert pytest.approx(1.69, rel=2e-3) == fitted.E
    assert (fitted.alpha, fitted.beta) == pytest.approx((0.34, 0.28), rel=5e-3)
    N, D, L = grid(CHINCHILLA)
    assert np.allclose(fitted(N, D), L, rtol=1e-4)


def test_a_run_gone_wrong_moves_the_fit_little():
    N, D, L = grid(CHINCHILLA, noise=1e-3)
    spoiled = L.copy()
    spoiled[7] *= 1.5
    assert pytest.approx(ladder.fit_law(N, D, L).E, rel=0.02) == ladder.fit_law(N, D, spoiled).E
    squared = ladder.fit_law(N, D, spoiled, delta=1e9)  # which is least squares
    assert abs(squared.E - CHINCHILLA.E) > 3 * abs(ladder.fit_law(N, D, spoiled).E - CHINCHILLA.E)


def test_the_gradient_is_the_losss():
    N, D, L = (np.log(v) for v in grid(CHINCHILLA, noise=0.01))
    for delta in (1e-3, 0.1):
        theta = np.array([5.0, 6.5, 0.4, 0.25, 0.3])
        by_hand = laws._huber(theta, N, D, L, delta)[1]
        numeric = approx_fprime(theta, lambda t, d=delta: laws._huber(t, N, D, L, d)[0], 1e-7)
        assert np.allclose(by_hand, numeric, rtol=1e-3, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.1, 1.0), st.floats(0.1, 1.0), st.floats(1.0, 1e4), st.floats(1.0, 1e4), st.floats(1e12, 1e26)
)  # fmt: skip
def test_the_allocation_spends_the_budget_and_no_other_is_better(alpha, beta, A, B, flops):
    law = Law(0.0, A, B, alpha, beta)  # beside an E of 1, float64 loses the differences that count here
    N, D = law.allocate(flops)
    assert pytest.approx(flops) == 6 * N * D
    found = minimize_scalar(
        lambda n: law(math.exp(n), flops / 6 / math.exp(n)),
        bounds=(math.log(N) - 3, math.log(N) + 3), method="bounded", options={"xatol": 1e-10},
    )  # fmt: skip
    assert law(N, D) <= found.fun * (1 + 1e-9)


def test_the_bootstrap_covers_the_truth_and_widens_with_noise():
    widths, covered = [], 0
    for noise, seed in [(1e-3, 0), (1e-3, 1), (1e-3, 2), (1e-3, 3), (1e-2, 0)]:
        drawn = ladder.bootstrap_laws(*grid(CHINCHILLA, noise, seed), np.random.default_rng(seed), resamples=60)
        assert drawn.shape == (60, 5)
        low, high = np.quantile(drawn[:, 0], [0.025, 0.975])
        widths.append(high - low)
        covered += low <= CHINCHILLA.E <= high
    assert covered >= 4
    assert widths[-1] > 4 * widths[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"parameters": [1, 2, 3, 4, 0]}, "parameters must be a row of positive numbers"),
        ({"losses": [1, 2, 3, 4, math.nan]}, "losses must be a row of positive numbers"),
        ({"tokens": [1, 2, 3, 4]}, "arrays of one length; got 5, 4, 5"),
        ({"parameters": [1, 2], "tokens": [1, 2], "losses": [1, 2]}, "five numbers need as many rungs"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, words):
    given = {key: [1, 2, 3, 4, 5] for key in ("parameters", "tokens", "losses")} | change
    with pytest.raises(ValueError, match=words):
        ladder.fit_law(**given)


# ------------------------------------------------------------ the ladder


def test_a_rung_is_trained_by_the_rule():
    recipe = rungs.rung(32, 600)
    assert (recipe.n_embd, recipe.n_inner, recipe.steps, recipe.seen) == (32, 64, 600, 4800)
    assert recipe.learning_rate * 32 == rungs.RATE
    assert rungs.rung(32, 600, 2).learning_rate == 2 * recipe.learning_rate
    assert recipe.arguments(0).min_lr_ratio == 0


def test_every_rung_has_its_name_and_no_two_are_one():
    named = ladder.ladder() | ladder.transfer()
    assert len(named) == len(ladder.ladder()) + len(ladder.transfer()) == len(set(named.values()))


@pytest.fixture
def small(monkeypatch):
    """Two rungs that take a moment, at two seeds."""
    named = {f"width 8, {steps} steps": rungs.rung(8, steps) for steps in (1, 2)}
    groups = {"ladder": Group(named, (0, 1))}
    monkeypatch.setattr(runs, "groups", lambda: groups)
    return groups


def test_what_is_missing_is_climbed_by_several_and_nothing_twice(tmp_path, small, monkeypatch):
    path = tmp_path / "rows.jsonl"
    rows = ladder.climb(small, path, jobs=2)
    saved = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(row["setting"], row["seed"]) for row in saved] == [
        (name, seed) for name in small["ladder"].settings for seed in (0, 1)
    ]
    assert len(rows) == 4
    assert saved[0] | {"seconds": 0} == sweep.rows.run("width 8, 1 steps", rungs.rung(8, 1), 0) | {"seconds": 0}
    monkeypatch.setattr(runs, "one", None)
    assert len(ladder.climb(small, path)) == 4


def test_an_interrupted_climb_keeps_what_is_finished(tmp_path, small, monkeypatch):
    path = tmp_path / "rows.jsonl"
    one, calls = runs.one, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return one(*args)

    monkeypatch.setattr(runs, "one", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ladder.climb(small, path)
    assert len(sweep.load(path)) == 2


def test_the_shell_says_what_is_missing(tmp_path, small, capsys):
    ladder.main(["--path", str(tmp_path / "rows.jsonl"), "--seeds", "0", "--dry-run"])
    assert "0 of 2 rows are there, 2 to compute" in capsys.readouterr().out
    assert not (tmp_path / "rows.jsonl").exists()


def test_without_dask_a_scheduler_says_what_to_install(tmp_path, small, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "distributed", None)
    with pytest.raises(SystemExit, match="pip install distributed"):
        ladder.main(["--path", str(tmp_path / "rows.jsonl"), "--seeds", "0", "--scheduler", "tcp://127.0.0.1:1"])
