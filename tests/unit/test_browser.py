"""The race in a browser: what it wrote is whole, and where npm and Chromium are, it runs."""

import json
import shutil

import pytest

from llmbook.experiments import browser
from llmbook.experiments.browser.race import RUNTIME

FIELDS = {"model", "runtime", "weights", "tokens_per_second", "bytes", "code_bytes", "logits_difference", "same_choice"}


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
        if row["weights"] == "float32":
            assert row["logits_difference"] < 1e-4
            assert row["same_choice"] == 1


def test_no_results(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"python -m llmbook\.experiments\.browser"):
        browser.load(tmp_path / "none.json")


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(browser.CannotRace, match="chromium"):
        browser.race()


@pytest.mark.enable_socket
def test_the_race_runs(tmp_path):
    """Two rounds of the small model; skipped, with a word, where npm or Chromium is missing."""
    if shutil.which("npm") is None:
        pytest.skip("no npm here, which brings ONNX Runtime Web")
    try:
        found = browser.race(count=4, rounds=2, only=1)
    except browser.CannotRace as error:
        if "npm" in str(error) or "PATH" in str(error):
            pytest.skip(str(error))
        raise
    rows = {(row["runtime"], row["weights"]): row for row in found["rows"]}
    assert len(rows) == 4
    for contestant, row in rows.items():
        assert row["logits_difference"] < (1e-4 if contestant[1] == "float32" else 1.0)
        assert row["tokens_per_second"] > 0
    assert rows["javascript", "float32"]["written"] == rows["onnxruntime-web", "float32"]["written"]
    assert json.dumps(found)
