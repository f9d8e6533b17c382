"""The long run over methods: rows that are resumed, that grow stale with the code, and that a run confirms."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from llmbook.compression import storage
from llmbook.evaluation import Estimate
from llmbook.experiments import compression, sweep
from llmbook.experiments.compression import METHODS, Method, cases, methods, runs
from llmbook.experiments.compression.methods import then
from llmbook.transformer import GPT, GPTConfig

CONFIG = GPTConfig(len(sweep.recipes.world().vocabulary), sweep.LONGEST, 128, 2, 2, n_inner=256, positions="rotary")


class Tiny(compression.Toy):
    """ToyWorld's case with an untrained model, measured by how far its first logits moved."""

    @property
    def base(self):
        return GPT(CONFIG, generator=torch.Generator().manual_seed(self.seed)).eval()

    @property
    def stories(self):
        return sweep.rows_of(sweep.stories(8, self.seed))

    def cost(self, model):
        ids = torch.tensor([[1, 2, 3]])
        with torch.no_grad():
            moved = (model(ids).logits - self.base(ids).logits).abs()
        return Estimate(float(moved.mean()), float(moved.std()))


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setitem(runs.CASES, "toyworld-gpt", Tiny)
    monkeypatch.setattr(methods, "HEAL", 2)
    monkeypatch.setattr(methods, "STUDENT", 2)
    monkeypatch.setitem(runs.SEEDS, "toyworld-gpt", (0, 1))
    return tmp_path / "rows.jsonl"


def some(*names):
    return {"toyworld-gpt": {name: METHODS["toyworld-gpt"][name] for name in names}}


def test_every_kind_of_method_makes_the_toy_smaller(path):
    """One of each way through the code runs, is stored, is read back, and takes fewer bytes than whole in float16."""
    known = METHODS["toyworld-gpt"]
    whole = compression.measure(Tiny(0), "float16", known["float16"])["bytes"]
    kinds = {method.kind: name for name, method in known.items() if method.family != "whole"}
    assert len(kinds) >= 12
    for name in kinds.values():
        row = compression.measure(Tiny(0), name, known[name])
        assert row["family"] in methods.FAMILIES
        assert np.isfinite(row["cost"])
        assert row["bytes"] < whole or known[name].family == "distillation", (
            name
        )  # students are as wide as the real ones


def test_a_second_method_starts_from_what_the_first_one_left():
    def first(case):
        model = case.fresh()
        with torch.no_grad():
            model.h[0].mlp.c_fc.weight.zero_()
        return model

    def second(case):
        assert torch.equal(case.statistics["h.0.mlp.c_proj"].gram, torch.zeros(256, 256))
        return case.fresh()

    case = Tiny(0)
    model = then(first, second)(case)
    assert model.h[0].mlp.c_fc.weight.abs().sum() == 0
    assert case.fresh().h[0].mlp.c_fc.weight.abs().sum() > 0
    assert torch.equal(case.on(model).base.wte.weight, case.base.wte.weight)


def test_what_is_measured_is_what_the_file_holds():
    model = Tiny(0).base
    size, found = cases.stored(model, "float16")
    assert torch.equal(found.h[0].mlp.c_fc.weight, model.h[0].mlp.c_fc.weight.half().float())
    assert size < 2.5 * sum(p.numel() for p in model.parameters())


def test_a_run_is_resumed_where_it_was_interrupted(path, monkeypatch):
    wanted, measured = some("float32", "magnitude 50%"), []
    original = runs.measure

    def breaks(case, name, method):
        if len(measured) == 3:
            raise KeyboardInterrupt
        measured.append((name, case.seed))
        return original(case, name, method)

    monkeypatch.setattr(runs, "measure", breaks)
    with pytest.raises(KeyboardInterrupt):
        compression.compress(path, wanted, progress=False)
    assert len(compression.load(path)) == 3
    monkeypatch.setattr(runs, "measure", original)
    rows = compression.compress(path, wanted, progress=False)
    assert [(row["method"], row["seed"]) for row in rows] == [
        ("float32", 0), ("magnitude 50%", 0), ("float32", 1), ("magnitude 50%", 1)
    ]  # fmt: skip
    assert rows[0]["cost"] == 0.0
    assert rows[1]["bytes"] < rows[0]["bytes"]


def test_rows_of_other_code_are_computed_again_or_confirmed(path, monkeypatch):
    wanted = some("float32", "magnitude 50%", "magnitude 70%")
    compression.compress(path, wanted, progress=False)
    monkeypatch.setattr(runs, "code_key", lambda: "other")
    assert len(compression.missing(compression.load(path), wanted)) == 6
    assert runs.confirm(path, wanted, progress=False) == []
    assert compression.missing(compression.load(path), wanted) == []


def test_a_row_that_ends_elsewhere_is_not_confirmed(path, monkeypatch):
    wanted = some("magnitude 50%")
    compression.compress(path, wanted, progress=False)
    rows = [json.loads(line) | {"cost": 99.0} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(runs, "code_key", lambda: "other")
    assert len(runs.confirm(path, wanted, progress=False)) == 1
    assert len(compression.missing(compression.load(path), wanted)) == 2


def test_without_calibration_text_the_real_model_needs_one_seed():
    keys = compression.missing([], METHODS)
    assert ("smollm2", "float16", 0) in keys
    assert ("smollm2", "float16", 1) not in keys
    assert ("smollm2", "int4 gptq, groups of 64", 1) in keys
    assert ("toyworld-gpt", "float16", 2) in keys


def test_a_damaged_line_is_named(path):
    path.write_text('{"model": "toyworld-gpt"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 1: family must be a str, got None; delete the line"):
        compression.load(path)


def test_a_dry_run_lists_and_runs_nothing(path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "measure", None)
    compression.main(["--path", str(path), "--dry-run", "--model", "smollm2", "--only", "nf4"])
    assert capsys.readouterr().out == "1 of 1 rows to compute\n  smollm2, nf4, groups of 64, seed 0\n"


def test_ctrl_c_ends_with_advice(path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "measure", interrupted)
    with pytest.raises(SystemExit) as stop:
        compression.main(["--path", str(path), "--model", "toyworld-gpt", "--only", "float32"])
    assert stop.value.code == 130
    assert "`make compression` goes on from there" in capsys.readouterr().err


def test_storage_refuses_what_it_has_no_kind_for():
    assert replace(Method("whole", lambda case: case.fresh()), dtype="float32").kind[1] == ""
    with pytest.raises(ValueError, match="dtype must be one of"):
        cases.stored(Tiny(0).base, "int8")
    assert storage.FLOATS.keys() == {"float32", "float16"}


def test_the_committed_rows_are_whole_and_of_this_code():
    rows = compression.load()
    assert [(row["model"], row["method"], row["seed"]) for row in rows] == runs.missing([])
    assert runs.missing(rows) == []
