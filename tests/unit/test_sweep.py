"""The sweep: what a run measures, and a file that survives interruptions, stale rows and damage."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from llmbook.experiments import sweep
from llmbook.experiments.sweep import Recipe
from llmbook.training import padded_batches
from llmbook.transformer import forward_flops, parameter_count

TINY = Recipe(steps=3, batch_size=2, n_embd=8, n_inner=8, n_head=2, held_out=4)
SETTINGS = {"plain": TINY, "dropout": replace(TINY, dropout=0.5)}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


# What a run is


def test_a_row_says_what_was_done():
    row = sweep.run("plain", TINY, seed=0)
    assert json.loads(json.dumps(row)) == row
    assert row["parameters"] == parameter_count(TINY.config)
    lengths = [len(story.tokens) for story in sweep._stories(6, 0)]
    assert row["tokens"] == sum(lengths)
    assert row["flops"] == 3 * sum(forward_flops(TINY.config, length) for length in lengths)
    assert row["excess"] > 0
    assert row["second_error"] is None


def test_the_same_seed_gives_the_same_run_and_another_one_does_not():
    one, two, other = (sweep.run("plain", TINY, seed)["excess"] for seed in (0, 0, 1))
    assert one == two != other


def test_shared_layers_are_one_tensor_everywhere():
    model = sweep.build(replace(TINY, share_layers=True), seed=0)
    block = sum(p.numel() for p in model.h[0].parameters())
    assert sum(p.numel() for p in model.parameters()) == parameter_count(TINY.config) - block
    trained, _ = sweep.train(replace(TINY, share_layers=True), seed=0)
    assert trained.h[0].mlp.c_fc.weight is trained.h[1].mlp.c_fc.weight


def test_shared_layers_survive_the_average():
    average, _ = sweep.train(replace(TINY, share_layers=True, ema_decay=0.5), seed=0)
    assert average.h[0].mlp.c_fc.weight is average.h[1].mlp.c_fc.weight


def test_the_average_is_the_one_by_hand():
    weights = []
    averaged, _ = sweep.train(
        replace(TINY, ema_decay=0.75), seed=0, callback=lambda step, m: weights.append(m.wte.weight.detach().clone())
    )
    hand = weights[0]
    for weight in weights[1:]:
        hand = 0.75 * hand + 0.25 * weight
    torch.testing.assert_close(averaged.wte.weight.detach(), hand)


def test_the_second_task_counts_what_is_left():
    rows = sweep.rows_of(sweep._stories(2, 0))
    batch = padded_batches(rows, replace(TINY, batch_size=2).arguments(0))(0)
    left = sweep.tokens_left(batch["labels"])
    for labels, counts in zip(batch["labels"], left, strict=True):
        n = int((labels != -100).sum())
        assert counts[:n].tolist() == list(range(n - 1, -1, -1))


def test_the_unit_of_the_second_loss_leaves_the_weighted_sum_of_its_best_variances_alone():
    rows = sweep.rows_of(sweep._stories(2, 0))
    batch = padded_batches(rows, TINY.arguments(0))(0)
    values = []
    for unit in (1.0, 100.0):
        generator = torch.Generator().manual_seed(0)
        model = sweep.TwoTasks(sweep.build(TINY, 0), unit, True, generator)
        model.start_from(batch)
        losses = model.losses(batch)
        values.append(float(model.combine(losses).detach()) - float(model.log_variances[1].detach()) / 2)
        slope = torch.autograd.grad(model.combine(losses), model.moved)[0]
        assert slope.abs().max() < 1e-4  # the best variances, to begin with
    assert values[0] == pytest.approx(values[1], rel=1e-5)


@pytest.mark.parametrize(
    "changes", [{"second_task": "third"}, {"warmup": 1.0}, {"ema_decay": -0.1}, {"held_out": 1}, {"second_unit": 0.0}]
)
def test_bad_recipes_name_the_field(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(TINY, **changes)


def test_the_grid_is_at_equal_tokens_but_for_the_layer_that_computes_less():
    base = sweep.grid()["baseline"]
    for name, recipe in sweep.grid().items():
        same = recipe.steps * recipe.batch_size == base.steps * base.batch_size
        assert same or name == "one layer, equal compute"


# The file


def test_a_sweep_is_resumed_where_it_was_interrupted(path, monkeypatch):
    calls = []

    def run_once_then_interrupt(setting, recipe, seed, run=sweep.run):
        calls.append((setting, seed))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(setting, recipe, seed)

    monkeypatch.setattr(sweep, "run", run_once_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(SETTINGS, [0], path)
    assert [row["setting"] for row in sweep.load(path)] == ["plain"]
    kept = path.read_text(encoding="utf-8")
    assert len(sweep.sweep(SETTINGS, [0], path)) == 2
    assert calls == [("plain", 0), ("dropout", 0), ("dropout", 0)]
    assert path.read_text(encoding="utf-8").startswith(kept)
    sweep.sweep(SETTINGS, [0], path)
    assert len(calls) == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left


def test_rows_of_other_recipes_and_other_code_do_not_count(path):
    row = sweep.run("plain", TINY, 0)
    assert sweep.missing(SETTINGS, [0], [row])[0] == [("dropout", 0)]
    assert len(sweep.missing(SETTINGS, [0], [row | {"code": "older"}])[0]) == 2
    assert len(sweep.missing({"plain": replace(TINY, dropout=0.1)}, [0], [row])[0]) == 1
    assert sweep.missing(SETTINGS, [1], [row])[1] == []


GOOD = {
    "setting": "plain", "seed": 0, "excess": 0.5, "standard_error": 0.1, "parameters": 1, "tokens": 1, "flops": 1,
    "recipe": {}, "code": "x",
}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"setting": "plain", "se', "no JSON"),
        ("[1, 2]", "must be an object"),
        (json.dumps(GOOD | {"excess": "0.5"}), "excess must be a float"),
        (json.dumps(GOOD | {"excess": math.nan}), "excess must be a float"),
        (json.dumps(GOOD | {"seed": True}), "seed must be a int"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "flops"}), "flops"),
        (json.dumps(GOOD | {"excess": 0.4}), "there already"),
    ],
)
def test_a_damaged_line_is_named(path, line, words):
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=f"rows.jsonl, line 2: .*{words}"):
        sweep.load(path)


def test_no_file_is_no_rows(path):
    assert sweep.load(path) == []


def test_a_dry_run_lists_and_runs_nothing(path, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "run", None)
    sweep.main(["--path", str(path), "--dry-run"])
    said = capsys.readouterr().out
    assert "0 of 320 rows" in said
    assert "baseline, seed 0" in said
    assert not path.exists()


def test_ctrl_c_ends_with_advice(path, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "run", interrupted)
    with pytest.raises(SystemExit) as stopped:
        sweep.main(["--path", str(path)])
    assert stopped.value.code == 130
    assert "goes on from there" in capsys.readouterr().err


def test_the_committed_rows_are_whole():
    rows = sweep.load()
    assert {(row["setting"], row["seed"]) for row in rows} == {(s, n) for s in sweep.grid() for n in sweep.SEEDS}
