"""The tools run, store, check and refuse as they say: each test runs them on a chapter of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import chapters
import kernel_transport
import nbformat
import notebook as nb
import pytest
from little import stream, tagged
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

pytestmark = pytest.mark.enable_socket  # a kernel talks to its client over local sockets
PARAMETERS = new_code_cell("seed = 0  # of every generator", metadata=tagged("parameters"))


def chapter(folder: Path, *cells: nbformat.NotebookNode, name: str = "90_little.ipynb") -> Path:
    """A chapter that has not been run, with these cells after its parameters."""
    path = folder / name
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Little"), PARAMETERS, *cells]), path)
    return path


def tool(*arguments: str | Path) -> subprocess.CompletedProcess:
    """Run tools/chapters.py as the Makefile does."""
    command = [sys.executable, nb.ROOT / "tools" / "chapters.py", *arguments]
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=1800)


CLAIM = "from llmbook.claims import claim\nclaim('The seed is small', seed + 0.5, at_most={bound})"


def test_run_stores_a_canonical_chapter(tmp_path):
    path = chapter(
        tmp_path,
        new_code_cell("print(1)\nprint(2)\n1 + 2", metadata={"execution": {"iopub.execute_input": "2026"}}),
        new_code_cell("1 / 0", metadata=tagged("raises-exception")),
        new_code_cell(CLAIM.format(bound=2)),
    )
    assert chapters.run_one(path, {}, path).error == ""
    stored = nb.read(path)
    assert nb.canonical(nb.read(path)) == stored
    assert [cell.execution_count for cell in nb.code_cells(stored)] == [1, 2, 3, 4]
    printed, failed, claimed = nb.code_cells(stored)[1:]
    assert [o.output_type for o in printed.outputs] == ["stream", "execute_result"]
    assert printed.metadata == {"executed_source": nb.source_hash(printed)}
    assert failed.outputs[0].traceback == ["ZeroDivisionError: division by zero"]
    assert claimed.outputs[0].metadata.claim.at_most == 2
    first = path.read_bytes()
    assert chapters.run_one(path, {}, path).error == ""
    assert path.read_bytes() == first


def test_solutions_and_nothing_else_are_folded_in_jupyterlab():
    between = "```{solution-end}\n```\n\n```{exercise-start}\n:label: b\n```\nNext.\n```{exercise-end}\n```"
    cells = [
        new_markdown_cell("```{exercise-start}\n:label: a\n```\nDo it.\n```{exercise-end}\n```"),
        new_code_cell("attempt"),
        new_markdown_cell("```{solution-start} a\n:class: dropdown\n```\nSo:"),
        new_code_cell("solution"),
        new_markdown_cell("And further:"),
        new_code_cell("more = 1"),
        new_markdown_cell(between),
        new_code_cell("attempt_b"),
        new_markdown_cell("```{solution-start} b\n```\nIn words.\n```{solution-end}\n```"),
        new_code_cell("after"),
    ]
    stored = nb.canonical(new_notebook(cells=cells))
    folded = [cell.source for cell in stored.cells if cell.metadata.get("jupyter") == {"source_hidden": True}]
    assert folded == ["solution", "more = 1"]
    assert nb.canonical(nbformat.from_dict(stored)) == stored


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n1 / 0", "90_little, code cell 2 ('x = 1'): ZeroDivisionError: division by zero"),
        (CLAIM.format(bound=0.2), "✗ The seed is small: ≈0.5 (claimed ≤ 0.2)"),
        ("import socket\nsocket.create_connection(('192.0.2.1', 80))", "chapters run without a network"),
        ("import urllib.request\nurllib.request.urlopen('http://example.org')", "without a network"),
    ],
)
def test_failing_chapter_is_named_and_left_as_it_was(tmp_path, source, said):
    path = chapter(tmp_path, new_code_cell(source))
    before = path.read_bytes()
    assert said in chapters.run_one(path, {}, path).error
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_run_formats_the_code_that_it_stores(tmp_path):
    path = chapter(tmp_path, new_code_cell("x=1\nprint( x )"))
    assert chapters.run_one(path, {}, path).error == ""
    assert nb.code_cells(nb.read(path))[1].source == "x = 1\nprint(x)"


def test_unknown_parameter_is_refused(tmp_path):
    path = chapter(tmp_path)
    assert "90_little has no parameter 'sede'; it has: seed" in chapters.run_one(path, {"sede": 1}, path).error


def test_chapter_runs_in_a_folder_of_its_own_with_the_seed_it_is_given(tmp_path):
    path = chapter(tmp_path, new_code_cell("import os\nprint(os.listdir(), seed, os.environ['OMP_NUM_THREADS'])"))
    assert chapters.run_one(path, {"seed": 7}, tmp_path / "out" / "o.ipynb").error == ""
    assert nb.code_cells(nb.read(tmp_path / "out" / "o.ipynb"))[1].outputs[0].text == "[] 7 1\n"


def test_rerun_reports_a_claim_that_does_not_hold_at_the_other_seed(tmp_path):
    path = chapter(tmp_path, new_code_cell(CLAIM.format(bound=1)))
    assert chapters.run_one(path, {}, path).error == ""
    assert "✗ The seed is small: ≈1.5" in chapters.rerun_one(path, {"seed": 1}).error


def test_rerun_reports_a_claim_that_is_made_at_one_seed_only(tmp_path):
    path = chapter(tmp_path, new_code_cell("if seed:\n    " + CLAIM.format(bound=9).replace("\n", "\n    ")))
    assert chapters.run_one(path, {}, path).error == ""
    assert "only one of the two runs: ['The seed is small']" in chapters.rerun_one(path, {"seed": 1}).error


def test_cells_that_need_what_is_absent_are_left_out_and_counted(tmp_path, capsys):
    cells = [new_code_cell(CLAIM.format(bound=2), metadata=tagged(tag)) for tag in nb.OPTIONAL]
    cells[1].source = cells[1].source.replace("The seed", "The seed of the model")
    path = chapter(tmp_path, *cells)
    assert chapters.run_one(path, {}, path).error == ""
    result = chapters.rerun_one(path, {"seed": 9}, nb.OPTIONAL)  # at seed 9 the claims would fail
    assert (result.error, result.skipped) == ("", {"reality-check": (1, 1), "real-model": (1, 1)})
    chapters.report(result)
    said = capsys.readouterr().out
    assert "skipped 1 reality-check cells with 1 claims (no NLTK corpora here: make data)" in said
    assert "skipped 1 real-model cells with 1 claims (no model here: make models)" in said


DRAWS = {
    "fresh = torch.randn(3)": "DefaultGenerator: torch.randn draws",
    "dropped = nn.Dropout()(torch.ones(3))": "DefaultGenerator: dropout draws",
    "layers = nn.LSTM(1, 1, 2, dropout=0.5)\nlayers(torch.ones(2, 1))": "DefaultGenerator: this cell draws",
    "print(nn.Linear(2, 2).bias)": "nan, nan",
    "print(torch.randn(2, generator=torch.Generator().manual_seed(0)))": "1.5410, -0.2934",
    "with torch.random.fork_rng():\n    torch.manual_seed(0)\n    print(torch.randn(2))": "1.5410, -0.2934",
}


def test_a_draw_that_no_seed_governs_fails_or_gives_nan(tmp_path):
    cells = [new_code_cell(source, metadata=tagged("raises-exception")) for source in DRAWS]
    path = chapter(tmp_path, new_code_cell("import torch\nfrom torch import nn"), *cells)
    assert chapters.run_one(path, {}, path).error == ""
    for cell, said in zip(nb.code_cells(nb.read(path))[2:], DRAWS.values(), strict=True):
        shown = "".join(o.get("text", "") + "".join(o.get("traceback", [])) for o in cell.outputs)
        assert said in shown, cell.source


@pytest.mark.skipif(os.name != "posix", reason="no socket files here")
def test_each_kernel_has_socket_files_of_its_own(tmp_path):
    first, second = (kernel_transport.sockets(str(tmp_path)) for _ in range(2))
    assert first["transport"] == second["transport"] == "ipc"
    assert first["ip"] != second["ip"]
    assert all(Path(s["ip"]).parent.is_dir() and str(tmp_path) in s["ip"] for s in (first, second))


def test_two_chapters_by_the_command_line(tmp_path):
    chapter(tmp_path, new_code_cell(CLAIM.format(bound=5)), name="90_a.ipynb")
    chapter(tmp_path, new_code_cell("1 / 0"), name="91_b.ipynb")
    done = tool("--folder", tmp_path, "run")
    assert done.returncode == 1
    assert "✓ 90_a: 1 claims" in done.stdout
    assert "✗ 91_b, code cell 2" in done.stdout
    assert "in all: 6 cells (4 code), 1 claims" in tool("--folder", tmp_path, "summary").stdout


def test_rerun_by_the_command_line(tmp_path, capsys):
    path = chapter(tmp_path, new_code_cell(CLAIM.format(bound=5)))
    assert chapters.run_one(path, {}, path).error == ""
    args = argparse.Namespace(chapters=["90"], folder=tmp_path, seed=1)
    assert chapters.command_rerun(args) == 0
    assert "1 claims hold at seed 1; 0 chapters failed; 0 claims skipped" in capsys.readouterr().out


def test_chapter_that_is_not_there_is_named(tmp_path):
    path = chapter(tmp_path)
    assert nb.find_chapters(["90"], tmp_path) == nb.find_chapters(["90_little"], tmp_path) == [path]
    with pytest.raises(ValueError, match=r"no chapter '7' in .*; there are: 90_little"):
        nb.find_chapters(["7"], tmp_path)


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = chapter(tmp_path)
    before = path.read_bytes()

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        nb.write(new_notebook(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_command_line_refuses_nothing_to_check(tmp_path, capsys):
    args = argparse.Namespace(chapters=[], folder=tmp_path, seed=1)
    assert chapters.command_nbval(args) == 1
    assert "no chapters" in capsys.readouterr().out


# --- what nbval compares ------------------------------------------------------------------------------------

NBVAL_CELLS = {
    "measured": ("print('rho ≈0.45')", "rho ≈0.41\n", True),
    "measured, negative and small": ("print('d ≈-1.2e-07, p ≈97.1%')", "d ≈3e-05, p ≈9.2%\n", True),
    "exact": ("print('rho 0.45')", "rho 0.41\n", False),
    "exact beside measured": ("print('≈0.45 of 12')", "≈0.45 of 13\n", False),
    "table, wider": ("print('a  |   ≈12.25 | 3\\n-----------')", "a  | ≈9.5 | 3\n--------\n", True),
    "table, other count": ("print('a  |  ≈12.25 | 3')", "a  | ≈9.5 | 4\n", False),
    "words": ("print('≈0.41 units')", "≈0.41 nats\n", False),
    "text of a model": ("print('seed 3: ≈ “a cat sat”')", "seed 3: ≈ “a dog\nran 7”\n", True),
    "words beside it": ("print('seed 3: ≈ “a cat sat”')", "seed 4: ≈ “a cat sat”\n", False),
    "lost": ("pass", "≈0.41\n", False),
}


def test_sanitiser_masks_measured_numbers_only(tmp_path):
    """Each pair (what a cell prints, what is stored) in one notebook; nbval passes just those that should."""
    cells = [new_code_cell(s, outputs=[stream(o)], execution_count=1) for s, o, _ in NBVAL_CELLS.values()]
    nbformat.write(new_notebook(cells=cells), tmp_path / "90_little.ipynb")
    command = [*chapters.nbval_command(tmp_path), "-n0", "-rA"]
    variables = chapters.environment(1, tmp_path / "settings")
    said = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables).stdout
    outcome = {name: f"PASSED 90_little.ipynb::Cell {i}" in said for i, name in enumerate(NBVAL_CELLS)}
    assert outcome == {name: passes for name, (_, _, passes) in NBVAL_CELLS.items()}, said
