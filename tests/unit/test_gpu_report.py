"""The report: ceilings that are ceilings, rows that add up, and a file that is read back or refused."""

from __future__ import annotations

import json

import pytest
import torch

from llmbook.experiments import gpu_report
from llmbook.experiments.gpu_report import ceilings, report, runs
from llmbook.transformer import GPTConfig, forward_flops, parameter_count

TINY = GPTConfig(50, 16, n_embd=16, n_layer=2, n_head=2)


def test_seconds_are_those_of_one_call(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(ceilings.time, "perf_counter", lambda: now[0])

    def call():
        now[0] += 0.003

    assert gpu_report.seconds(call, at_least=0.2) == pytest.approx(0.003)
    with pytest.raises(ValueError, match="at_least must be positive"):
        gpu_report.seconds(call, at_least=0)


def test_products_are_timed_under_their_precision_and_it_is_put_back(monkeypatch):
    before, seen = torch.get_float32_matmul_precision(), []

    def seconds(function, *_):
        seen.append(torch.get_float32_matmul_precision())
        function()
        return 0.5

    monkeypatch.setattr(ceilings, "seconds", seconds)
    assert gpu_report.matmul_flops("cpu", "tf32", [4, 8]) == {4: 256.0, 8: 2048.0}
    assert seen == ["high", "high"]
    assert torch.get_float32_matmul_precision() == before
    with pytest.raises(ValueError, match=r"precision must be one of .* got 'int8'"):
        gpu_report.matmul_flops("cpu", "int8", [4])


def test_a_copy_counts_reading_and_writing(monkeypatch):
    monkeypatch.setattr(ceilings, "seconds", lambda *_: 2.0)
    assert gpu_report.copy_bandwidth("cpu", 4000) == 4000.0


def test_published_ceilings_are_without_sparsity_and_in_order():
    cards = gpu_report.PUBLISHED
    assert [cards[name].flops["bfloat16"] / 1e12 for name in cards] == [312, 989.4, 989.4, 2250]
    assert all(card.flops["bfloat16"] == pytest.approx(2 * card.flops["tf32"], rel=0.03) for card in cards.values())


@pytest.mark.parametrize("options", [{}, {"recompute": True}])
def test_a_row_adds_up(options, monkeypatch):
    monkeypatch.setattr(runs, "seconds", lambda step, *_, **__: (step(), 0.25)[1])
    row = gpu_report.training_row("tiny", TINY, "cpu", "bfloat16", 2, 16, ceiling=1e9, **options)
    assert json.loads(json.dumps(row)) == row
    assert row["parameters"] == parameter_count(TINY)
    assert row["tokens_per_s"] == 2 * 16 / 0.25
    assert row["flops_per_token"] * 16 == 3 * forward_flops(TINY, 16)
    assert row["mfu"] == pytest.approx(row["flops_per_token"] * row["tokens_per_s"] / 1e9, rel=1e-3)
    assert row["step_bytes"] > 4 * parameter_count(TINY)


def test_a_step_trains():
    step, model = gpu_report.make_step(TINY, "cpu", "float32", 2, 16)
    before = model.wte.weight.detach().clone()
    step()
    assert not torch.equal(before, model.wte.weight)


@pytest.fixture
def quick(monkeypatch):
    small = {"a": (TINY, 2, 16), "b": (TINY, 1, 8)}
    monkeypatch.setattr(report, "shapes", lambda device: small)
    monkeypatch.setattr(report, "copy_bandwidth", lambda *_: 1e9)
    monkeypatch.setattr(report, "matmul_flops", lambda *_: {8: 1e9})


def test_the_shell_writes_a_report_that_is_read_back(tmp_path, quick, capsys):
    path = tmp_path / "gpu_report_cpu.json"
    gpu_report.main(["--device", "cpu", "--output", str(path), "--seconds", "0.001", "--no-compile"])
    assert str(path) in capsys.readouterr().out
    found = gpu_report.load(path)
    assert found["machine"]["device"] == "cpu"
    assert len(found["training"]) == 2 * 2 + 2
    assert gpu_report.reports(tmp_path) == [found]


def test_without_a_compiler_the_report_says_so(quick, monkeypatch):
    def refuse(model):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", refuse)
    rows = report.measure("cpu", 0.001)["training"]
    assert [row["failed"] for row in rows if row.get("compiled")] == ["RuntimeError: no C++ compiler"]


def test_a_damaged_report_is_refused(tmp_path):
    path = tmp_path / "gpu_report_x.json"
    path.write_text('{"machine": {')
    with pytest.raises(ValueError, match=r"gpu_report_x\.json must hold a report in JSON"):
        gpu_report.load(path)
    path.write_text('{"machine": {}}')
    with pytest.raises(ValueError, match="it lacks ceilings, training"):
        gpu_report.load(path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_an_error(capsys):
    with pytest.raises(SystemExit):
        gpu_report.main(["--device", "cuda"])
    assert "sees no GPU" in capsys.readouterr().err


def test_the_committed_report_names_its_machine_and_was_quick():
    (first, *_) = gpu_report.reports()
    about = first["machine"]
    assert about["device"] == "cpu"
    assert about["name"]
    assert about["date"][:2] == "20"
    assert about["took_s"] < 180
    assert {row["precision"] for row in first["training"]} == {"float32", "bfloat16"}
    assert all(0 < row["mfu"] < 1 for row in first["training"] if "failed" not in row)
