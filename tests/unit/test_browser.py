"""The race in a browser: what it wrote is whole, and where npm and Chromium are, it runs."""

import json
import shutil

import pytest
import torch

from llmbook import edge
from llmbook.decoding import generate
from llmbook.experiments import browser
from llmbook.experiments.browser.race import RUNTIME, STATIC
from llmbook.toyworld import ToyWorld

FIELDS = {"model", "runtime", "weights", "tokens_per_second", "bytes", "code_bytes", "logits_difference", "same_choice"}


def opening():
    """The prompt of the race: the first words of a story."""
    world = ToyWorld("small")
    return world.encode(["<bos>", *world.stories(1, 3)[0].tokens[:15]]).tolist()


def test_the_committed_race_is_whole():
    found = browser.load()
    assert found["runtime"] == "@".join(RUNTIME)
    contestants = [(row["model"], row["runtime"], row["weights"]) for row in found["rows"]]
    wanted = {
        ("javascript", "float32"),
        ("javascript", "int8"),
        ("onnxruntime-web", "float32"),
        ("onnxruntime-web", "int8"),
    }
    for name in {model for model, _, _ in contestants}:
        assert {(b, c) for a, b, c in contestants if a == name} == wanted
    for row in found["rows"]:
        assert row.keys() >= FIELDS
        assert 0 < row["slowest"] <= row["tokens_per_second"] <= row["fastest"]
        assert len(row["written"]) == found["tokens"]
        assert len(row["seconds"]) == found["rounds"]
        if row["runtime"] == "javascript":
            assert row["code_bytes"] == (STATIC / "gpt.js").stat().st_size, "the script has changed: run the race again"
        if row["weights"] == "float32":
            assert row["logits_difference"] < 1e-4
            assert row["same_choice"] == 1


def test_the_committed_race_wrote_torchs_tokens():
    """In float32, the likeliest tokens of the page's weights."""
    found, model, row = browser.load(), edge.load_page(edge.PAGE_WEIGHTS)[0], opening()
    wanted = generate(model, torch.tensor([row]), found["tokens"], eos_token_id=[])[0, len(row) :].tolist()
    ran = [one for one in found["rows"] if one["model"].startswith("ToyWorld") and one["weights"] == "float32"]
    assert [one["written"] for one in ran] == [wanted, wanted]


def test_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m llmbook\.experiments\.browser"):
        browser.load(tmp_path / "none.json")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(browser.CannotRace, match="chromium"):
        browser.race()


@pytest.mark.enable_socket
def test_the_race_runs(tmp_path):
    """Two rounds of the small model: torch's tokens in every runtime. Skipped where npm or Chromium is missing."""
    if shutil.which("npm") is None:
        pytest.skip("no npm here, which brings ONNX Runtime Web")
    try:
        found = browser.race(count=20, rounds=2, only=1)
    except browser.CannotRace as error:
        if "npm" in str(error) or "PATH" in str(error):
            pytest.skip(str(error))
        raise
    rows = {(row["runtime"], row["weights"]): row for row in found["rows"]}
    assert len(rows) == 4
    for contestant, row in rows.items():
        assert row["logits_difference"] < (1e-4 if contestant[1] == "float32" else 1.0)
        assert row["tokens_per_second"] > 0
    model, row = edge.load_page(edge.PAGE_WEIGHTS)[0], opening()
    wanted = generate(model, torch.tensor([row]), 20, eos_token_id=[])[0, len(row) :].tolist()
    edge.export(model, tmp_path / "gpt.onnx")
    assert edge.OnnxGPT(tmp_path / "gpt.onnx").write(row, 20) == wanted
    for runtime in ("javascript", "onnxruntime-web"):
        assert rows[runtime, "float32"]["written"] == wanted, runtime
    assert json.dumps(found)
