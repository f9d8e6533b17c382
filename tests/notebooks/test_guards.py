"""Each guard catches the fault that it is for, planted in a chapter where all else is well."""

from __future__ import annotations

import guards
import pytest
from little import PIXEL, display, finished, little, stream, tagged, with_cell
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_output


def edited(index: int, **changes: object) -> NotebookNode:
    """The little chapter with one cell's fields changed behind the tools' back."""
    notebook = little()
    notebook.cells[index].update(changes)
    return notebook


def with_prose(text: str) -> NotebookNode:
    """The little chapter with one more paragraph."""
    notebook = little()
    notebook.cells.insert(4, new_markdown_cell(text))
    return finished(notebook)


def replaced(old: str, new: str) -> NotebookNode:
    """The little chapter with other words in its Markdown cells."""
    notebook = little()
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = cell.source.replace(old, new)
    return finished(notebook)


def with_metadata(index: int, **metadata: object) -> NotebookNode:
    notebook = little()
    notebook.cells[index].metadata.update(metadata)
    return notebook


def with_figure(alt: str = "A white square.........", caption: str = "White.", name: str = "fig-x", images: int = 1):
    picture = new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})
    mystnb = {"image": {"alt": alt}, "figure": {"caption": caption, "name": name}}
    return with_cell("draw()", *[picture] * images, mystnb=mystnb)


def with_claim(**changes: object) -> NotebookNode:
    record = {"text": "One is one", "value": 1, "equals": 1, "at_least": None, "at_most": None} | changes
    return with_cell("claim(text, 1, equals=1)", display("✓ One is one: 1 (claimed = 1)", claim=record))


def stripped() -> NotebookNode:
    notebook = little()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []
    return notebook


def half_run() -> NotebookNode:
    notebook = little()
    notebook.cells[5].execution_count = 9
    return notebook


def noisy_notebook() -> NotebookNode:
    notebook = little()
    notebook.metadata["papermill"] = {"duration": 3.2, "output_path": "out.ipynb"}
    return notebook


def injected() -> NotebookNode:
    notebook = with_cell("seed = 1")
    notebook.cells[5].metadata["tags"] = ["injected-parameters"]
    return notebook


def unsolved() -> NotebookNode:
    notebook = little()
    notebook.cells = [c for c in notebook.cells if "{solution-start} ex-90-2" not in c.source]
    return finished(notebook)


def without_solution_code() -> NotebookNode:
    notebook = little()
    notebook.cells = [c for c in notebook.cells if "return x + 2" not in c.source]
    return finished(notebook)


def without_claims() -> NotebookNode:
    notebook = little()
    notebook.cells = [c for c in notebook.cells if not c.source.startswith("claim(")]
    return finished(notebook)


def one_more_measured_section() -> NotebookNode:
    """A measured number after the section's last claim; the claim of another section is no help."""
    return with_cell("print(measured(4))", stream("≈4\n"), at=7)


LONG = "\n".join(f"x{i} = {i}" for i in range(26))
NEEDS_REAL = with_cell("y = real + 1", at=9)
FIGURE = {"mystnb": {"image": {"alt": "A white square........"}, "figure": {"caption": "White.", "name": "fig-x"}}}
REAL_MODEL = with_cell("logits = model(ids)", at=5, tags=["real-model"])
REAL_MODEL.cells.insert(6, new_code_cell("print(logits)"))
DRAWS = with_cell("z = rng.normal()", at=5, tags=["reality-check"])

PLANTED = [
    ("stripped", guards.executed, stripped()),
    ("run out of order", guards.executed, half_run()),
    ("outputs cleared, counts left", guards.speaks_where_it_prints, edited(4, outputs=[])),
    ("claim without its output", guards.speaks_where_it_prints, edited(5, outputs=[])),
    ("other code than shown", guards.outputs_of_this_source, edited(4, source="weight = 0.25\nprint(0.5)")),
    ("never run by the tools", guards.outputs_of_this_source, with_metadata(4, executed_source=None)),
    ("papermill's block", guards.canonical_form, noisy_notebook()),
    ("a duration in a cell's metadata", guards.canonical_form, with_metadata(4, execution={"iopub": "12:00"})),
    ("an injected cell", guards.canonical_form, injected()),
    ("an id that isn't its source's", guards.canonical_form, edited(4, id="mine")),
    ("one id twice", guards.unique_ids, edited(4, id=little().cells[5].id)),
    ("an error not announced", guards.errors_are_announced, with_metadata(7, tags=[])),
    ("an announced error that never came", guards.errors_are_announced, with_cell("1", **tagged("raises-exception"))),
    ("stderr", guards.no_stderr, with_cell("warn()", stream("UserWarning: old\n", "stderr"))),
    ("a path printed", guards.no_paths, with_cell("print(p)", stream("/home/ada/book\n"))),
    ("a Windows path", guards.no_paths, with_cell("print(p)", stream(r"C:\Users\ada\book"))),
    ("a path in code", guards.no_paths, with_cell("open('/tmp/x.txt')")),
    ("a path in metadata", guards.no_paths, with_metadata(4, papermill={"out": "/root/x.ipynb"})),
    ("seconds", guards.no_run_times, with_cell("print(t)", stream("training took 12.5 s\n"))),
    ("milliseconds", guards.no_run_times, with_cell("print(t)", stream("3ms\n"))),
    ("wall time", guards.no_run_times, with_cell("%%time", stream("Wall time: 2 h\n"))),
    ("a date", guards.no_run_times, with_cell("print(now)", stream("2026-01-31 12:00:01\n"))),
    ("an address", guards.no_addresses, with_cell("x", display("<Model object at 0x7f00c0ffee>"))),
    ("a model's layers", guards.no_inventories, with_cell("m.eval()", display("GPT(\n  (wte): Embedding(9, 4)\n)"))),
    ("a progress bar", guards.no_progress_bars, with_cell("fit()", stream(" 40%|████      | 4/10"))),
    ("a carriage return", guards.no_progress_bars, with_cell("fit()", stream("1/3\r2/3\r3/3\n"))),
    ("a widget", guards.no_progress_bars, with_cell(
        "w", new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": ""}))),
    ("an SVG", guards.no_svg, with_cell("f", new_output("display_data", {"image/svg+xml": "<svg/>"}))),
    ("no alt text", guards.described_images, with_figure(alt="")),
    ("alt text too short", guards.described_images, with_figure(alt="a plot")),
    ("mathematics in alt text", guards.described_images, with_figure(alt="A plot of $x^2$ against $x$ itself")),
    ("no caption", guards.described_images, with_figure(caption="")),
    ("no name", guards.described_images, with_figure(name="")),
    ("two images in a cell", guards.described_images, with_figure(images=2)),
    ("a claim in a figure's cell", guards.described_images, with_cell(
        "draw()", new_output("display_data", {"image/png": PIXEL, "text/plain": ""}), display("✓ One"), **FIGURE)),
    ("≈ and no claim after it", guards.measured_is_bounded, one_more_measured_section()),
    ("≈ in an HTML table", guards.measured_is_bounded, with_cell(
        "table", new_output("display_data", {"text/html": "<td>≈4</td>", "text/plain": "table"}), at=7)),
    ("≈ by hand", guards.measured_by_function, with_cell("print(f'≈{2:.1f}')", stream("≈2.0"))),
    ("no bound recorded", guards.claims_are_sound, with_claim(equals=None)),
    ("a full stop", guards.claims_are_sound, with_claim(text="One is one.")),
    ("one claim twice", guards.claims_are_sound, with_claim(text="The sum is large")),
    ("no claim", guards.has_claims, without_claims()),
    ("a figure out of nowhere", guards.prose_figures_have_cells, with_prose("As we see, 0.83 is reached.")),
    ("a percentage out of nowhere", guards.prose_figures_have_cells, with_prose("It gains 17 % on average.")),
    ("a cell of 26 lines", guards.short_cells, with_cell(LONG)),
    ("a line of 81 characters", guards.narrow_lines, with_cell("x = 1  # " + "a" * 72)),
    ("imports not folded", guards.folded_plumbing, with_cell("import math\nplots.use_style()")),
    ("claims not folded", guards.folded_plumbing, with_cell("claim('a', 1.5, at_least=1)\nclaim('b', 2, equals=2)")),
    ("claims in a loop, not folded", guards.folded_plumbing, with_cell("for x in y:\n    claim(x, 1.5, at_least=1)")),
    ("a figure not folded", guards.folded_plumbing, with_cell(
        "draw()", new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"}), **FIGURE)),
    ("torch's global seed", guards.safe_code, with_cell("torch.manual_seed(seed)")),
    ("numpy's global seed", guards.safe_code, with_cell("np.random.seed(seed)")),
    ("no parameters", guards.plain_parameters, with_metadata(1, tags=[])),
    ("a computed parameter", guards.plain_parameters, edited(1, source="seed = 0  # a\nn = 2 * 3  # b")),
    ("a parameter without comment", guards.plain_parameters, edited(1, source="seed = 0")),
    ("no seed", guards.plain_parameters, edited(1, source="size = 3  # of it")),
    ("a statement among parameters", guards.plain_parameters, edited(1, source="seed = 0  # s\nprint(seed)  # x")),
    ("a semicolon", guards.no_trailing_semicolon, with_cell("plot(x);")),
    ("a semicolon before a comment", guards.no_trailing_semicolon, with_cell("plot(x);  # quiet\ny = 1")),
    ("pickle", guards.safe_code, with_cell("import pickle")),
    ("torch.load", guards.safe_code, with_cell("m = torch.load('m.pt')")),
    ("trust_remote_code", guards.safe_code, with_cell("m = load('gpt2', trust_remote_code=True)")),
    ("shell=True", guards.safe_code, with_cell("subprocess.run('ls', shell=True)")),
    ("a shell magic", guards.safe_code, with_cell("!pip install wefe")),
    ("a fetch", guards.safe_code, with_cell("urllib.request.urlopen('https://example.org')")),
    ("eval of text", guards.safe_code, with_cell("x = eval('1')")),
    ("silenced warnings", guards.safe_code, with_cell("warnings.filterwarnings('ignore')")),
    ("reads a reality check's name", guards.optional_cells_stand_alone, NEEDS_REAL),
    ("reads it in a function", guards.optional_cells_stand_alone, with_cell("def f():\n    return real", at=9)),
    ("reads a real model's name", guards.optional_cells_stand_alone, REAL_MODEL),
    ("draws from a shared generator", guards.optional_cells_stand_alone, DRAWS),
    ("no label", guards.opening, replaced("(ch-90)=", "")),
    ("a number in the title", guards.opening, replaced("# A little", "# 90. A little")),
    ("two objectives", guards.opening, replaced("- tell a sum\n  from a difference.\n", "")),
    ("no prerequisites", guards.opening, replaced("**Prerequisites:**", "")),
    ("no run time", guards.opening, replaced("under 5 s", "short")),
    ("too long a run time", guards.opening, replaced("under 5 s", "under 90 s")),
    ("no launch links", guards.opening, replaced("{download}", "")),
    ("no questions", guards.quiz, replaced("## Three questions", "## Questions")),
    ("two questions", guards.quiz, replaced(":::{dropdown} What is one and one and 2?", ":::{note}")),
    ("an answer left out", guards.quiz, replaced("and 3?\nA sum: it is large.", "and 3?")),
    ("a statement for a question", guards.quiz, replaced("What is one and one and 1?", "One and one.")),
    ("two exercises", guards.exercises, replaced("{exercise-start} Add\n:label: ex-90-3", "")),
    ("an exercise without its kind", guards.exercises, replaced("*Code, hard, about 30 minutes.*", "")),
    ("an exercise of unknown length", guards.exercises, replaced("about 30 minutes", "long")),
    ("exercises of one kind", guards.exercises, replaced("*Derive", "*Code")),
    ("no solution", guards.exercises, unsolved()),
    ("a solution not folded", guards.exercises, replaced("ex-90-2\n:class: dropdown", "ex-90-2")),
    ("a solution without code", guards.exercises, without_solution_code()),
    ("no checker", guards.exercises, edited(2, source="from llmbook.claims import claim, measured")),
    ("no article box", guards.article_box, replaced("What the article says", "Note")),
    ("a box without verdict", guards.article_box, replaced("**Wrong**", "Wrong")),
    ("a box without §", guards.article_box, replaced("§ 4.1", "somewhere")),
    ("no exercises section", guards.closing, replaced("## Exercises", "## Tasks")),
    ("no summary", guards.closing, replaced("## Summary", "## End")),
    ("no further reading", guards.closing, replaced("{cite:t}`shannon1948mathematical`", "Shannon")),
]  # fmt: skip


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda g: g.__name__)
def test_good_chapter_passes(guard):
    assert guard(little()) == []


@pytest.mark.parametrize(("guard", "notebook"), [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
def test_planted_fault_is_caught(guard, notebook):
    assert guard(notebook)


def test_every_guard_has_a_planted_fault():
    assert set(guards.GUARDS) == {guard for _, guard, _ in PLANTED}


@pytest.mark.parametrize(
    ("guard", "notebook"),
    [
        (guards.no_run_times, with_cell("print(t)", stream("≈12.5 s, ≈1,234 s and 3 sums"))),
        (guards.no_paths, with_cell("print(p)", stream("notebooks/work/a and n/a"))),
        (guards.optional_cells_stand_alone, with_cell("real = 4\nprint(real)", stream("4\n"), at=9)),
        (guards.prose_figures_have_cells, with_prose("See § 4.1, Python 3.11, `0.83`, and $0.91$.")),
        (guards.prose_figures_have_cells, with_prose("It reached 0.83 {cite:p}`levy2014neural`.")),
        (guards.prose_figures_have_cells, with_prose("% cited: 57.3 (Levy and Goldberg)\nTheirs reached 57.3 points.")),
        (guards.no_trailing_semicolon, with_cell("x = ';'\ny = 1; z = 2")),
        (guards.optional_cells_stand_alone, with_cell("def f(real):\n    return real", at=9)),
        (guards.folded_plumbing, with_cell("import math\nx = math.pi")),
        (guards.folded_plumbing, with_cell("import math", tags=["hide-cell"])),
        (guards.safe_code, with_cell("g = torch.Generator().manual_seed(seed)")),
    ],
)
def test_what_is_allowed(guard, notebook):
    assert guard(notebook) == []


def test_measured_number_does_not_support_prose():
    notebook = with_cell("print(measured(x))", stream("≈3.7\n"))
    notebook.cells.insert(4, new_markdown_cell("It is 3.7."))
    assert guards.prose_figures_have_cells(notebook)
    written = with_cell("print(written(x))", stream("≈ “it costs 3.7”\n"))
    written.cells.insert(4, new_markdown_cell("It is 3.7."))
    assert guards.prose_figures_have_cells(written)


def test_copied_code_is_found_both_ways_round():
    lines = "\n".join(f"y{i} = f(x, {i})" for i in range(6))
    one, other = with_cell(lines), with_cell("import math\n" + lines + "\nprint(1)")
    assert guards.copied_code(one, other)
    assert guards.copied_code(other, one)
    assert not guards.copied_code(one, with_cell(lines.replace("y5", "z")))
