"""The sweep: what a run measures, and a file that survives interruptions, stale rows and damage."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import llmbook
from llmbook.experiments import records, sweep
from llmbook.experiments.sweep import Group, Recipe, recipes, rows
from llmbook.optimizers import Combined
from llmbook.training import padded_batches
from llmbook.transformer import forward_flops, parameter_count

TINY = Recipe(steps=3, batch_size=2, n_embd=8, n_inner=8, n_head=2, held_out=4)
SETTINGS = {"plain": TINY, "dropout": replace(TINY, dropout=0.5)}


def group(seeds=(0,), settings=SETTINGS):
    return {"all": Group(settings, tuple(seeds))}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rows.jsonl"


# What a run is


def test_a_row_says_what_was_done():
    row = sweep.run("plain", TINY, seed=0)
    assert json.loads(json.dumps(row)) == row
    assert row["parameters"] == parameter_count(TINY.config)
    lengths = [len(story.tokens) for story in sweep.stories(6, 0)]
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
    rows = sweep.rows_of(sweep.stories(2, 0))
    batch = padded_batches(rows, replace(TINY, batch_size=2).arguments(0))(0)
    left = sweep.tokens_left(batch["labels"])
    for labels, counts in zip(batch["labels"], left, strict=True):
        n = int((labels != -100).sum())
        assert counts[:n].tolist() == list(range(n - 1, -1, -1))


def test_the_unit_of_the_second_loss_leaves_the_weighted_sum_of_its_best_variances_alone():
    rows = sweep.rows_of(sweep.stories(2, 0))
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


def test_muon_is_for_the_blocks_matrices_and_costs_what_it_costs():
    model = sweep.build(TINY, 0)
    assert isinstance(sweep.optimizer_for(model, replace(TINY, optimizer="muon")), Combined)
    plain, muon = (sweep.run("x", recipe, 0) for recipe in (TINY, replace(TINY, optimizer="muon")))
    assert muon["excess"] != plain["excess"]
    # five steps of X Xᵀ, G G and G X: the smaller side is 8, the larger 24, 8, 8 and 8, in two layers, for 3 steps
    once = sum(2 * 8 * 8 * m + 2 * 8**3 + 2 * 8 * 8 * m for m in (24, 8, 8, 8))
    assert muon["flops"] - plain["flops"] == 3 * 2 * 5 * once


def test_a_run_that_stops_early_keeps_its_best_weights():
    seen = []
    recipe = replace(TINY, steps=60, stories=2, learning_rate=0.05, stop_early=10)

    def look(step, model):
        if (step + 1) % 10 == 0:
            seen.append(sweep.excess(model, 100, sweep.KEPT_ASIDE_SEED).mean)

    model, history = sweep.train(recipe, 0, look)
    assert sweep.excess(model, 100, sweep.KEPT_ASIDE_SEED).mean == min(seen) < seen[-1]
    assert len(history.steps) == 60
    measured, aside = (
        {story.text for story in sweep.held_out(20, n)[0]} for n in (sweep.HELD_OUT_SEED, sweep.KEPT_ASIDE_SEED)
    )
    assert not measured & aside


@pytest.mark.parametrize(
    "changes",
    [
        {"second_task": "third"}, {"warmup": 1.0}, {"ema_decay": -0.1}, {"held_out": 1}, {"second_unit": 0.0},
        {"optimizer": "sgd"}, {"adam_beta2": 1.0}, {"stop_early": -1}, {"stories": -1},
    ],
    ids=str,
)  # fmt: skip
def test_bad_recipes_name_the_field(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        replace(TINY, **changes)


def test_the_grid_is_at_equal_tokens_but_for_the_layer_that_computes_less():
    base = sweep.grid()["baseline"]
    for name, recipe in sweep.grid().items():
        same = recipe.steps * recipe.batch_size == base.steps * base.batch_size
        assert same or name in ("one layer, equal compute", "AdamW, Muon's compute")


def test_adamw_with_more_steps_does_the_work_of_muon():
    work = {row["setting"]: row["flops"] for row in sweep.load() if row["seed"] == 0}
    assert work["AdamW, Muon's compute"] == pytest.approx(work["Muon"], rel=0.005)


def test_a_retuned_strategy_differs_by_its_rate_alone():
    for name, recipe in recipes.retuned().items():
        strategy, factor = name.split(", rate ×")
        rate = sweep.grid()[strategy].learning_rate * float(factor)
        assert recipe == replace(sweep.grid()[strategy], learning_rate=rate)


def test_the_half_life_of_beta_2_is_kept_in_stories():
    half = {name: math.log(0.5) / math.log(r.adam_beta2) * r.batch_size for name, r in sweep.grid().items()}
    kept = [name for name in half if "kept" in name]
    assert kept
    for name in kept:
        assert half[name] == pytest.approx(half["baseline"])
        same = replace(sweep.grid()[name], adam_beta2=0.98)
        assert same == sweep.grid()[name.removesuffix(", β₂ kept")]


# What the key covers


def test_the_key_covers_all_that_a_run_executes():
    """A function of ours that a run enters is in the key, or is named here as one that moves no number."""
    recipe_variants = (
        {}, {"optimizer": "muon"}, {"stop_early": 1},
        {"ema_decay": 0.5}, {"second_task": "uncertainty"}, {"share_layers": True}, {"dropout": 0.1},
    )  # fmt: skip
    root, seen = str(Path(llmbook.__file__).parent), {}

    def note(frame, event, argument):
        if event == "call" and frame.f_code.co_filename.startswith(root):
            code = frame.f_code
            seen[code.co_filename, code.co_firstlineno] = code.co_qualname

    rows.code_key()  # its own work is not a run's
    sys.setprofile(note)
    try:
        for changes in recipe_variants:
            runs_row(replace(TINY, **changes))
    finally:
        sys.setprofile(None)
    covered = set()
    for part in rows.PARTS:
        lines, start = inspect.getsourcelines(inspect.unwrap(part))
        file = inspect.getsourcefile(inspect.unwrap(part))
        covered |= {(file, number) for number in range(start, start + len(lines))}
    neutral = (
        "progress_bar", "shows_progress", "interrupts", "Run.", "Flag", "ranks", "sum_over_processes", "_due",
        "_show", "_evaluate_if_due", "held", "keep_memory", "History", "TrainingArguments.", "Recipe.__", "Group",
        "run", "flops", "forward_flops", "newton_schulz_flops", "stories", "world", "_check", "_logprobs", "_is_a",
        "_mlp_matrices", "Muon.__init__", "optimizer_for", "<lambda>",
    )  # fmt: skip
    left = {
        name for place, name in seen.items()
        if place not in covered and "toyworld" not in place[0] and "tokenization" not in place[0]
        and not name.startswith(neutral) and not name.split(".")[-1].startswith(neutral)
    }  # fmt: skip
    assert not left, sorted(left)


def runs_row(recipe):
    return sweep.run("x", recipe, 0)


def test_the_key_sees_code_and_not_its_layout():
    plain = "def f(x):\n    return x + 1\n"
    same = 'def f(x):\n    """What f is."""\n    return (x  # a comment\n            + 1)\n'
    assert records.outline(plain) == records.outline(same)
    assert records.outline(plain) != records.outline(plain.replace("1", "2"))
    assert records.outline(plain) != records.outline(plain.replace("x", "y"))
    assert records.outline("class A:\n    'Doc.'\n    b = 1") == records.outline("class A:\n    b = 1")


def test_the_key_is_the_same_in_every_version_of_python():
    """By hand: what Python 3.11, 3.12 and 3.13 all gave for code whose ast.unparse and ast.dump differ."""
    source = "def f(x: int, spec='g') -> str:\n    return f\"{x:{spec}}{x['a']!r}\" if x else ()\n"
    assert hashlib.sha256(records.outline(source).encode()).hexdigest()[:12] == "e9a1011505c0"


# The file


def test_a_sweep_is_resumed_where_it_was_interrupted(path, monkeypatch):
    calls = []

    def run_once_then_interrupt(setting, recipe, seed, run=rows.run):
        calls.append((setting, seed))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return run(setting, recipe, seed)

    monkeypatch.setattr(rows, "run", run_once_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        sweep.sweep(group(), path)
    assert [row["setting"] for row in sweep.load(path)] == ["plain"]
    kept = path.read_text(encoding="utf-8")
    assert len(sweep.sweep(group(), path)) == 2
    assert calls == [("plain", 0), ("dropout", 0), ("dropout", 0)]
    assert path.read_text(encoding="utf-8").startswith(kept)
    sweep.sweep(group(), path)
    assert len(calls) == 3
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # no temporary file is left


def test_rows_of_other_recipes_and_other_code_do_not_count(path):
    row = rows.run("plain", TINY, 0)
    assert sweep.missing(group(), [row])[0] == [("dropout", 0)]
    assert len(sweep.missing(group(), [row | {"code": "older"}])[0]) == 2
    assert len(sweep.missing(group(settings={"plain": replace(TINY, dropout=0.1)}), [row])[0]) == 1
    assert sweep.missing(group(seeds=[1]), [row])[1] == []


def test_a_row_from_before_a_field_was_added_has_its_default():
    row = rows.run("plain", TINY, 0)
    for name, here in (("stop_early", True), ("steps", False)):
        older = row | {"recipe": {k: v for k, v in row["recipe"].items() if k != name}}
        assert bool(sweep.missing(group(settings={"plain": TINY}), [older])[1]) == here
    strange = row | {"recipe": row["recipe"] | {"no_such_field": 1}}
    assert sweep.missing(group(settings={"plain": TINY}), [strange])[1] == []


def stale_rows(path, settings, off=0.0):
    """Three seeds of each setting, by older code, the first of which ended elsewhere."""
    made = [rows.run(name, recipe, seed) | {"code": "older"} for name, recipe in settings.items() for seed in range(3)]
    made[0]["excess"] += off
    rows.save(made, path)
    return group(seeds=range(3), settings=settings)


def test_rows_of_older_code_are_kept_where_one_of_their_kind_ends_near_again(path):
    settings = {"plain": TINY, "rate": replace(TINY, learning_rate=0.01), "dropout": replace(TINY, dropout=0.5)}
    groups = stale_rows(path, settings, off=1e-6)
    assert len(sweep.missing(groups, sweep.load(path))[0]) == 9
    assert sweep.confirm(groups, path) == []
    kept = sweep.load(path)
    plain = {"code": sweep.code_key(), "setting": "plain", "seed": 0, "apart": -1e-6}
    found = {name: [row["confirmed"] for row in kept if row["setting"] == name] for name in settings}
    assert found["plain"] == found["rate"] == [plain] * 3  # another rate takes the same ways
    assert {confirmed["setting"] for confirmed in found["dropout"]} == {"dropout"}
    assert {row["code"] for row in kept} == {"older"}  # who made them stays written
    assert sweep.missing(groups, kept)[0] == []
    before = path.read_text(encoding="utf-8")
    assert sweep.confirm(groups, path) == []  # nothing is left to confirm
    assert path.read_text(encoding="utf-8") == before


def test_rows_that_end_elsewhere_are_not_kept(path):
    groups = stale_rows(path, {"plain": TINY, "dropout": replace(TINY, dropout=0.5)}, off=0.5)
    assert sweep.confirm(groups, path) == ["plain"]
    assert {name for name, _ in sweep.missing(groups, sweep.load(path))[0]} == {"plain"}


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
    monkeypatch.setattr(rows, "run", None)
    sweep.main(["--path", str(path), "--dry-run"])
    said = capsys.readouterr().out
    wanted = sum(len(g.settings) * len(g.seeds) for g in sweep.groups().values())
    assert f"0 of {wanted} rows" in said
    assert "baseline, seed 0" in said
    assert not path.exists()
    sweep.main(["--path", str(path), "--dry-run", "--only", "batch 4", "--seeds", "1", "2"])
    assert "0 of 4 rows" in capsys.readouterr().out


def test_ctrl_c_ends_with_advice(path, capsys, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(rows, "run", interrupted)
    with pytest.raises(SystemExit) as stopped:
        sweep.main(["--path", str(path)])
    assert stopped.value.code == 130
    assert "goes on from there" in capsys.readouterr().err


def test_the_committed_rows_are_whole_and_of_this_code():
    kept = sweep.load()
    wanted = [key for g in sweep.groups().values() for name in g.settings for key in ((name, n) for n in g.seeds)]
    assert [(row["setting"], row["seed"]) for row in kept] == wanted
    assert sweep.missing(sweep.groups(), kept)[0] == []
