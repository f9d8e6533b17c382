"""The ledger agrees with the chapters, and its arithmetic with a sum done by hand."""

from __future__ import annotations

import json

import chapters
import ledger
import notebook as nb
import pytest
from little import little


def claim(values: list, **bounds) -> dict:
    """A claim as claims.json holds it."""
    defaults = dict.fromkeys(("at_least", "at_most", "equals", "tol"))
    other = {"text": "The sum is large", "bound": "≥ 2", "cell": "abc", "optional": False}
    return defaults | other | bounds | {"values": values}


def test_ledger_is_in_step_with_the_chapters():
    data = json.loads(ledger.VALUES.read_text(encoding="utf-8"))
    assert ledger.out_of_step(data, nb.find_chapters()) == [], "run `make ledger`"
    assert ledger.PAGE.read_text(encoding="utf-8") == ledger.page(data), "run `make ledger`"


@pytest.mark.parametrize(
    ("entry", "measured", "margin"),
    [
        (claim([3.0, 4.0, 5.0], at_least=2), "4 ± 1", "**2**"),
        (claim([3.0, 4.0, 5.0], at_least=-1), "4 ± 1", "5"),
        (claim([3.0, 4.0, 5.0], at_least=-1, at_most=4.5), "4 ± 1", "**0.5**"),
        (claim([0.9, 1.0, 1.1], equals=1.0, tol=1.0), "1 ± 0.1", "10"),
        (claim([3.0, 3.0, 3.0], at_least=2), "3", "—"),
        (claim([1, 2, 3], at_most=1000), "2 ± 1", "> 100"),
        (claim([True, True, True], equals=True), "yes", "—"),
        (claim(["word"] * 3, equals="word"), "word", "—"),
        (claim([12, 12, 12], equals=12), "12", "—"),
    ],
)
def test_row(entry, measured, margin):
    assert ledger.show_measured(entry["values"]) == measured
    assert ledger.show_margin(entry) == margin


def test_page_links_and_escapes():
    entry = claim([1.0, 2.0, 3.0], at_least=0, text="P(a|b) < $x_1$", optional=True)
    data = {"seeds": [0, 1, 2], "chapters": [{"chapter": "90_little", "title": "Little", "claims": [entry]}]}
    text = ledger.page(data)
    assert r'<a href="../notebooks/90_little.html#cell-abc">P(a\|b) &lt; \$x\_1\$</a> †' in text
    assert "seeds 0, 1 and 2" in text
    assert "1 claims in 1 chapters: 0 exact" in text


def test_fault_out_of_step_is_caught(tmp_path):
    path = tmp_path / "90_little.ipynb"
    notebook = little()
    nb.write(notebook, path)
    runs = [chapters.Result("90_little", claims=[{"text": "The sum is large", "value": 3.0}])] * 3
    data = {"seeds": [0, 1, 2], "chapters": [ledger.collect(path, runs)]}
    assert ledger.out_of_step(data, [path]) == []
    data["chapters"][0]["claims"][0]["bound"] = "≥ 3"
    assert len(ledger.out_of_step(data, [path])) == 2
    assert "not in the ledger" in ledger.out_of_step({"chapters": []}, [path])[0]


def test_runs_are_kept_and_taken_from_the_cache(tmp_path, monkeypatch):
    path = tmp_path / "90_little.ipynb"
    nb.write(little(), path)
    calls = []

    def run(path, given):
        calls.append(given["seed"])
        return chapters.Result(path.stem, claims=[{"text": "t", "value": 1}])

    monkeypatch.setattr(chapters, "rerun_one", run)
    monkeypatch.setattr(ledger, "CACHE", tmp_path / "cache")
    for seed in (0, 1, 0, 1):
        assert ledger.run_cached(path, seed).claims == [{"text": "t", "value": 1}]
    assert calls == [0, 1]


def test_one_chapter_is_renewed_and_the_others_keep_their_rows():
    seeds = list(ledger.SEEDS)
    old = {"seeds": seeds, "chapters": [{"chapter": "01_a", "claims": [1]}, {"chapter": "02_b", "claims": [2]}]}
    new = ledger.merged(old, [{"chapter": "01_a", "claims": [3]}])
    assert new == {"seeds": seeds, "chapters": [{"chapter": "01_a", "claims": [3]}, {"chapter": "02_b", "claims": [2]}]}
    assert ledger.merged(old | {"seeds": [0]}, new["chapters"][:1])["chapters"] == new["chapters"][:1]


def test_key_follows_the_imports_and_nothing_else():
    found = {str(path.relative_to(ledger.nb.ROOT / "src" / "llmbook")) for path in ledger.imported(
        "from llmbook.tokenization import Vocabulary\nfrom llmbook import plots")}  # fmt: skip
    assert {"__init__.py", "tokenization.py", "plots.py", "bpe.py", "files.py"} <= found
    assert not {name for name in found if name.startswith(("training", "word2vec", "transformer"))}


def test_failed_run_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "90_little.ipynb"
    nb.write(little(), path)
    monkeypatch.setattr(chapters, "rerun_one", lambda *_, **__: chapters.Result("90_little", error="no"))
    monkeypatch.setattr(ledger, "CACHE", tmp_path / "cache")
    assert ledger.run_cached(path, 0).error == "no"
    assert not (tmp_path / "cache").exists()
