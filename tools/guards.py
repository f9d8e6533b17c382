"""Guards: what must never be true of a committed chapter. Each is a function from a notebook to faults.

They read the stored notebook and run nothing; tests/notebooks/test_guards.py plants each fault.

What they cannot see, and a reviewer must look for: a bound so loose that a broken mechanism would meet
it; a claim that bounds another number than the ≈ before it; figures in the prose as words or whole
numbers ("three times"); what a picture shows; an optional cell that changes an object in place.
"""

from __future__ import annotations

import ast
import copy
import io
import re
import tokenize
from collections.abc import Callable, Iterator
from itertools import pairwise

import notebook as nb
from nbformat import NotebookNode

MAX_LINES = 25
MAX_COLUMNS = 80  # what a page shows beside its two side bars at 1280 pixels
MIN_ALT = 20  # characters
MIN_EXERCISES = 3
MAX_SECONDS = 60
COPIED_LINES = 6

MEASURED = re.compile(r"≈\s*[-+−]?[\d.,]+(e[-+]?\d+)?%?|≈ “[^”]*”")
ABSOLUTE_PATH = re.compile(r"(?<![\w.])/(home|root|tmp|work|Users|mnt|usr/local|var/folders)/|\b[A-Z]:\\Users\\")
RUN_TIME = re.compile(
    r"\b(Wall time|CPU times)\b|\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d"
    r"|(?<![≈\d.,-])\b\d+(\.\d+)? ?(ms|µs|s|secs?|seconds)\b"
)
OBJECT_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{4,}")
INVENTORY = re.compile(r"^\w+\(\n +\(\w+\): ")  # torch's list of a module's layers
PROGRESS_BAR = re.compile(r"\d+%\s?\||\bit/s\b|\r")
FORBIDDEN = {
    "pickle": r"\b(c?pickle|dill|joblib)\b|allow_pickle",
    "torch.load": r"\btorch\.load\(",
    "trust_remote_code": r"\btrust_remote_code\b",
    "shell": r"\bshell\s*=\s*True|\bos\.system\(|^\s*[!%]",
    "a network fetch": (r"\b(urlopen|urlretrieve)\(|\brequests\.\w+\(|\bhttpx\.|\b(wget|curl)\b|nltk\.download\("),
    "eval or exec": r"(?<![\w.])(eval|exec)\(",
    "torch's global seed": r"\btorch\.(cuda\.)?manual_seed(_all)?\(|\b(np|numpy)\.random\.seed\(|^\s*random\.seed\(",
    "silenced warnings": r"(filter|simple)(warnings|filter)\(\s*[\"']ignore",
}


def code(notebook: NotebookNode) -> Iterator[tuple[str, NotebookNode]]:
    """Each code cell with a name for messages: its number among all cells and its first line."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            first = cell.source.strip().splitlines()[0] if cell.source.strip() else ""
            yield f"cell {index} ({first[:50]!r})", cell


def prose(notebook: NotebookNode) -> Iterator[tuple[str, str]]:
    """Each Markdown cell's text, with a name for messages."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            yield f"cell {index}", cell.source


def texts(cell: NotebookNode) -> Iterator[str]:
    """All text that a cell's outputs show."""
    for output in cell.outputs:
        if output.output_type == "stream":
            yield output.text
        if output.output_type == "error":
            yield f"{output.ename}: {output.evalue}\n" + "\n".join(output.traceback)
        for kind, content in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield content if isinstance(content, str) else "".join(content)


def parsed(cell: NotebookNode) -> ast.Module:
    """The cell's syntax tree; empty for a cell that isn't plain Python (another guard refuses magics)."""
    try:
        return ast.parse(cell.source)
    except SyntaxError:
        return ast.Module(body=[], type_ignores=[])


# --- outputs belong to the code ---------------------------------------------------------------------------


def executed(notebook: NotebookNode) -> list[str]:
    """Every cell has run, once, in order: nbval passes a stripped notebook without a word."""
    counts = [cell.execution_count for _, cell in code(notebook)]
    if counts == list(range(1, len(counts) + 1)):
        return []
    return [f"execution counts are {counts}: the notebook is stripped or was run out of order"]


def speaks_where_it_prints(notebook: NotebookNode) -> list[str]:
    """A cell whose own statements print, claim or show has an output."""
    return [
        f"{name} prints or claims, but has no output"
        for name, cell in code(notebook)
        if not cell.outputs and any(_prints(statement) for statement in parsed(cell).body)
    ]


def _prints(statement: ast.stmt) -> bool:
    if not _is_call(statement):
        return False
    function = statement.value.func
    return getattr(function, "id", getattr(function, "attr", "")) in ("print", "claim", "show", "display")


def outputs_of_this_source(notebook: NotebookNode) -> list[str]:
    """The stored outputs were produced by the code that the cell shows."""
    return [
        f"{name} has changed since its output was stored: run `make notebooks`"
        for name, cell in code(notebook)
        if cell.metadata.get("executed_source") != nb.source_hash(cell)
    ]


def canonical_form(notebook: NotebookNode) -> list[str]:
    """No run metadata (times, paths, papermill's blocks), and cell ids that follow from the source."""
    clean = nb.canonical(copy.deepcopy(notebook))
    faults = [] if clean.metadata == notebook.metadata else ["the notebook's metadata hold more than a chapter's"]
    if len(clean.cells) != len(notebook.cells):
        return [*faults, "an injected-parameters cell was stored"]
    for (index, cell), other in zip(enumerate(notebook.cells), clean.cells, strict=True):
        for key in ("metadata", "id", "outputs"):
            if cell.get(key) != other.get(key):
                faults.append(f"cell {index}: its {key} is not as `make notebooks` stores it")
    return faults


def unique_ids(notebook: NotebookNode) -> list[str]:
    """No two cells share an id."""
    ids = [cell.get("id") for cell in notebook.cells]
    return [f"cell id {name!r} occurs {ids.count(name)} times" for name in sorted({i for i in ids if ids.count(i) > 1})]


# --- what outputs may hold --------------------------------------------------------------------------------


def errors_are_announced(notebook: NotebookNode) -> list[str]:
    """An error output carries the tag raises-exception, and the tag an error."""
    faults = []
    for name, cell in code(notebook):
        failed = any(output.output_type == "error" for output in cell.outputs)
        if failed != ("raises-exception" in nb.tags(cell)):
            faults.append(
                f"{name}: " + ("an error without" if failed else "no error for") + " the tag raises-exception"
            )
    return faults


def no_stderr(notebook: NotebookNode) -> list[str]:
    """Nothing was written to stderr: warnings are mended at their source."""
    return [
        f"{name} wrote to stderr: {output.text.strip()[:80]!r}"
        for name, cell in code(notebook)
        for output in cell.outputs
        if output.get("name") == "stderr"
    ]


def no_paths(notebook: NotebookNode) -> list[str]:
    """No absolute path of one machine, in code, outputs or metadata."""
    faults = []
    for name, cell in code(notebook):
        for place, text in [("code", cell.source), ("metadata", str(cell.metadata))] + [
            ("output", text) for text in texts(cell)
        ]:
            if found := ABSOLUTE_PATH.search(text):
                faults.append(f"{name}: an absolute path in its {place}: {found.group()!r}")
    if found := ABSOLUTE_PATH.search(str(notebook.metadata)):
        faults.append(f"an absolute path in the notebook's metadata: {found.group()!r}")
    return faults


def no_run_times(notebook: NotebookNode) -> list[str]:
    """No bare duration or date in an output: those of one machine, at one time."""
    return _matching(notebook, RUN_TIME, "a run time or date, not behind ≈")


def no_addresses(notebook: NotebookNode) -> list[str]:
    """No object address: it differs from run to run."""
    return _matching(notebook, OBJECT_ADDRESS, "an object address")


def no_inventories(notebook: NotebookNode) -> list[str]:
    """No list of a model's layers, which a cell that ends in ``model.eval()`` shows unasked."""
    return _matching(notebook, INVENTORY, "a module's inventory")


def no_progress_bars(notebook: NotebookNode) -> list[str]:
    """No progress bar or widget."""
    widgets = [
        f"{name} shows a widget"
        for name, cell in code(notebook)
        for output in cell.outputs
        if any("widget" in kind for kind in output.get("data", {}))
    ]
    return widgets + _matching(notebook, PROGRESS_BAR, "a progress bar")


def _matching(notebook: NotebookNode, pattern: re.Pattern, what: str) -> list[str]:
    return [
        f"{name} prints {what}: {found.group()!r}"
        for name, cell in code(notebook)
        for text in texts(cell)
        if (found := pattern.search(text))
    ]


def no_svg(notebook: NotebookNode) -> list[str]:
    """No SVG output: nbval compares it, and matplotlib writes a date into it."""
    return [
        f"{name} shows an SVG"
        for name, cell in code(notebook)
        for output in cell.outputs
        if "image/svg+xml" in output.get("data", {})
    ]


def described_images(notebook: NotebookNode) -> list[str]:
    """Each image has alt text that says what it shows, a caption and a name to refer to."""
    faults = []
    for name, cell in code(notebook):
        images = sum("image/png" in output.get("data", {}) for output in cell.outputs)
        meta = cell.metadata.get("mystnb", {})
        alt = meta.get("image", {}).get("alt", "")
        figure = meta.get("figure", {})
        if images > 1:
            faults.append(f"{name} shows {images} images, which would share one alt text")
        if figure and sum("data" in output for output in cell.outputs) > 1:
            faults.append(
                f"{name} shows a figure and more: the page would make a figure of each; claim in another cell"
            )
        if images and (len(alt) < MIN_ALT or "$" in alt):
            faults.append(f"{name}: mystnb.image.alt must say in words what the image shows, got {alt!r}")
        if images and (not figure.get("caption") or not figure.get("name", "").startswith("fig-")):
            faults.append(f"{name}: mystnb.figure needs a caption, and a name that begins with 'fig-'")
    return faults


# --- claims -----------------------------------------------------------------------------------------------


def sections(notebook: NotebookNode) -> list[list[tuple[str, NotebookNode]]]:
    """The code cells, grouped by the `##` heading that they stand under."""
    groups: list[list[tuple[str, NotebookNode]]] = [[]]
    named = iter(code(notebook))
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and re.search(r"^## ", cell.source, re.MULTILINE):
            groups.append([])
        if cell.cell_type == "code":
            groups[-1].append(next(named))
    return groups


def measured_is_bounded(notebook: NotebookNode) -> list[str]:
    """Each output with ≈ is followed, in its section, by a claim (or holds one)."""
    faults = []
    for section in sections(notebook):
        claiming = [any("claim" in o.get("metadata", {}) for o in cell.outputs) for _, cell in section]
        for position, (name, cell) in enumerate(section):
            if any("≈" in text for text in texts(cell)) and not any(claiming[position:]):
                faults.append(f"{name} prints a measured number (≈), and no claim in its section bounds it")
    return faults


def measured_by_function(notebook: NotebookNode) -> list[str]:
    """≈ comes from `claim`, `measured` or `written`, never from a string in the cell."""
    return [
        f"{name} writes ≈ by hand: use measured(…) or written(…)"
        for name, cell in code(notebook)
        if any(isinstance(node, ast.Constant) and "≈" in str(node.value) for node in ast.walk(parsed(cell)))
    ]


def claims_are_sound(notebook: NotebookNode) -> list[str]:
    """Each claim has a bound, no closing full stop, and words of its own."""
    faults, seen = [], set()
    for _, record in nb.claims(notebook):
        text = record.get("text", "")
        if all(record.get(key) is None for key in ("at_least", "at_most", "equals")):
            faults.append(f"claim {text!r} records no bound")
        if text.endswith(".") or not text:
            faults.append(f"claim {text!r} must be a statement without a full stop")
        if text in seen:
            faults.append(f"claim {text!r} is made twice")
        seen.add(text)
    return faults


def has_claims(notebook: NotebookNode) -> list[str]:
    """A chapter establishes something."""
    return [] if any(True for _ in nb.claims(notebook)) else ["the chapter makes no claim"]


# --- prose ------------------------------------------------------------------------------------------------

NOT_PROSE = re.compile(
    r"```.*?```|\$\$.*?\$\$|\$[^$\n]+\$|`[^`]*`|\]\([^)]*\)|https?://\S+|^#.*$|^\(\S+\)=$|^:\w+:.*$|<!--.*?-->",
    re.DOTALL | re.MULTILINE,
)
MATH_BLOCK = re.compile(r"^(```+|:::+)\{(math|code|code-block)\}.*?^\1\s*$", re.DOTALL | re.MULTILINE)
DIRECTIVE_FENCE = re.compile(r"^(```+|:::+).*$", re.MULTILINE)
FIGURE = re.compile(r"(?<![\w.§-])(?<!§ )(?<!Python )(?<!CUDA )(\d+\.\d+|\d+(?:\.\d+)?(?= ?%))(?![\w.]*\d)")
CITED = re.compile(r"^% cited: (.*)$", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?")


def prose_figures_have_cells(notebook: NotebookNode) -> list[str]:
    """A decimal or percentage in the prose occurs in the code or in an exact output of the chapter.

    Allowed besides: numbers in mathematics, in code, in a paragraph or table with a citation (`{cite`),
    and those that a line `% cited: 57.3, 60.1 (source)` in the same cell lists. A number printed
    behind ≈ is no support: it changes from one machine to the next, and the prose would not.
    """
    supported = _numbers_of_cells(notebook)
    faults = []
    for name, text in prose(notebook):
        allowed = supported | {n for line in CITED.findall(text) for n in _numbers(line)}
        for paragraph in re.split(r"\n\s*\n", MATH_BLOCK.sub("", CITED.sub("", text))):
            if "{cite" in paragraph:
                continue
            plain = NOT_PROSE.sub(" ", DIRECTIVE_FENCE.sub("", paragraph))
            for found in FIGURE.findall(plain):
                if not {float(found), round(float(found) / 100, 9)} & allowed:
                    faults.append(f"{name}: the prose says {found}, and no cell does")
    return faults


def _numbers_of_cells(notebook: NotebookNode) -> set[float]:
    numbers: set[float] = set()
    for _, cell in code(notebook):
        for text in [cell.source, *texts(cell)]:
            numbers |= _numbers(MEASURED.sub("≈", text))
    return numbers


def _numbers(text: str) -> set[float]:
    return {float(number.replace(",", "")) for number in NUMBER.findall(text)}


# --- code -------------------------------------------------------------------------------------------------


def short_cells(notebook: NotebookNode) -> list[str]:
    """A cell does one thing, in at most 25 lines; blank ones, which the formatter puts in, don't count."""
    return [
        f"{name} has {lines} lines; at most {MAX_LINES}"
        for name, cell in code(notebook)
        if (lines := sum(bool(line.strip()) for line in cell.source.splitlines())) > MAX_LINES
    ]


def narrow_lines(notebook: NotebookNode) -> list[str]:
    """No line of code, strings and comments included, is wider than the page shows without scrolling."""
    return [
        f"{name}: line {number} has {len(line)} characters; at most {MAX_COLUMNS}"
        for name, cell in code(notebook)
        for number, line in enumerate(cell.source.splitlines(), start=1)
        if len(line) > MAX_COLUMNS
    ]


def folded_plumbing(notebook: NotebookNode) -> list[str]:
    """Cells that only import, draw, claim or print are folded, so that the page shows the lines that matter."""
    folded = {*nb.FOLDED, "parameters"}
    solutions = [notebook.cells[index] for index in nb.solution_cells(notebook)]
    return [
        f"{name} {what}: fold it with the tag hide-input"
        for name, cell in code(notebook)
        if not folded & set(nb.tags(cell)) and not any(cell is s for s in solutions)
        if (what := _plumbing(cell))
    ]


def _plumbing(cell: NotebookNode) -> str:
    """What a cell does that a reader may skip; "" for a cell that computes or defines something."""
    statements = parsed(cell).body
    if statements and all(isinstance(s, ast.Import | ast.ImportFrom) or _calls(s, "use_style") for s in statements):
        return "only imports"
    if statements and all(_calls(s, "claim") for s in statements):
        return "only claims"
    if any("image/png" in output.get("data", {}) for output in cell.outputs):
        return "draws a figure"
    return ""


def _calls(statement: ast.stmt, name: str) -> bool:
    """Whether a statement is a call of this function or method, or a loop over such calls."""
    if isinstance(statement, ast.For):
        return all(_calls(s, name) for s in statement.body)
    function = statement.value.func if _is_call(statement) else None
    return getattr(function, "id", getattr(function, "attr", "")) == name


def _is_call(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call)


def plain_parameters(notebook: NotebookNode) -> list[str]:
    """One cell tagged parameters: literals, each with a comment, `seed` among them."""
    cells = [(name, cell) for name, cell in code(notebook) if "parameters" in nb.tags(cell)]
    if len(cells) != 1:
        return [f"{len(cells)} cells carry the tag parameters; a chapter has one"]
    name, cell = cells[0]
    lines, faults = cell.source.splitlines(), []
    for statement in parsed(cell).body:
        text = ast.unparse(statement)
        if not _is_literal_assignment(statement):
            faults.append(f"{name}: {text!r} is not the assignment of a literal to a name")
        if "#" not in lines[statement.end_lineno - 1]:
            faults.append(f"{name}: {text!r} needs a comment on its line")
    if "seed" not in nb.parameters(notebook):
        faults.append(f"{name}: no parameter `seed`")
    return faults


def _is_literal_assignment(statement: ast.stmt) -> bool:
    if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1):
        return False
    try:
        ast.literal_eval(statement.value)
    except ValueError:
        return False
    return isinstance(statement.targets[0], ast.Name)


def no_trailing_semicolon(notebook: NotebookNode) -> list[str]:
    """`;` at a line's end hides an output in Jupyter but not from nbval: write `_ = …`."""
    faults = []
    for name, cell in code(notebook):
        try:
            tokens = list(tokenize.generate_tokens(io.StringIO(cell.source).readline))
        except (tokenize.TokenError, IndentationError):
            continue
        significant = [t for t in tokens if t.type != tokenize.COMMENT]
        if any(a.string == ";" and b.type in (tokenize.NEWLINE, tokenize.NL) for a, b in pairwise(significant)):
            faults.append(f"{name} has a line that ends with ';'")
    return faults


def safe_code(notebook: NotebookNode) -> list[str]:
    """No pickle, shell, network, eval, untrusted code or silenced warnings."""
    return [
        f"{name} uses {what}: {found.group().strip()!r}"
        for name, cell in code(notebook)
        for what, pattern in FORBIDDEN.items()
        if (found := re.search(pattern, cell.source, re.MULTILINE))
    ]


def optional_cells_stand_alone(notebook: NotebookNode) -> list[str]:
    """Cells tagged reality-check or real-model can be left out: no other cell reads what they assign or draw."""
    return [fault for tag in nb.OPTIONAL for fault in _needed_cells(notebook, tag)]


def _needed_cells(notebook: NotebookNode, tag: str) -> list[str]:
    faults: list[str] = []
    owner: dict[str, str] = {}  # a name -> the optional cell that assigned it last
    for name, cell in code(notebook):
        stored, loaded = _names(cell)
        if tag in nb.tags(cell):
            owner |= dict.fromkeys(stored, name)
            if shared := sorted(n for n in loaded - stored if re.fullmatch(r"(\w+_)?(rng|generator)", n)):
                faults.append(f"{name} draws from {shared[0]!r}, so leaving it out changes what follows")
            continue
        faults += [f"{name} reads {n!r}, assigned in {tag} {owner[n]}" for n in sorted(loaded - stored) if n in owner]
        owner = {n: cell_name for n, cell_name in owner.items() if n not in stored}
    return faults


def _names(cell: NotebookNode) -> tuple[set[str], set[str]]:
    """The names that a cell binds and those that it reads, nested functions included."""
    stored, loaded = set(), set()
    for node in ast.walk(parsed(cell)):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else stored).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            stored.add(node.name)
        elif isinstance(node, ast.arg):
            stored.add(node.arg)
        elif isinstance(node, ast.alias):
            stored.add((node.asname or node.name).split(".")[0])
    return stored, loaded


# --- anatomy ----------------------------------------------------------------------------------------------


def opening(notebook: NotebookNode) -> list[str]:
    """The first cell: label, title without a number, objectives, prerequisites, run time, launch links."""
    first = notebook.cells[0].source if notebook.cells else ""
    wanted = {
        "a label (ch-NN)=": r"^\(ch-\d\d\)=$",
        "a title without a number": r"^# [^\d\s]",
        "**What you will be able to do** with 3 to 5 bullets": (
            r"\*\*What you will be able to do\*\*\s*\n+(?:[-*] .*(?:\n(?![-*] ).+)*(?:\n|$)\n?){3,5}"
        ),
        "**Prerequisites:**": r"\*\*Prerequisites:?\*\*",
        "**Run time:** in seconds": r"\*\*Run time:?\*\*.*\b\d+ ?s",
        "**Run it:** with `make lab` and a {download}": r"\*\*Run it:?\*\*.*make lab.*\{download\}",
    }
    faults = [f"the first cell lacks {what}" for what, p in wanted.items() if not re.search(p, first, re.M)]
    for seconds in re.findall(r"\*\*Run time:?\*\*.*?(\d+) ?s", first):
        if int(seconds) > MAX_SECONDS:
            faults.append(f"the first cell states {seconds} s; a chapter has {MAX_SECONDS} s")
    return faults


EXERCISE = re.compile(
    r"\A\s*\*(?P<kind>Derive|Code|Experiment), (easy|medium|hard), about (5|10|15|20|30|45) minutes\.\*"
)


def exercises(notebook: NotebookNode) -> list[str]:
    """At least three exercises, each with a stub, a folded solution that runs, and one with a checker."""
    text = "\n".join(t for _, t in prose(notebook))
    labels = re.findall(r"\{exercise-start\}.*?:label: (\S+)", text, re.DOTALL)
    faults = [] if len(labels) >= MIN_EXERCISES else [f"{len(labels)} exercises; at least {MIN_EXERCISES}"]
    for label in labels:
        start = re.search(rf"\{{solution-start\}} {re.escape(label)}\s*\n((?::.*\n)*)", text)
        if not start:
            faults.append(f"exercise {label} has no solution")
        elif ":class: dropdown" not in start.group(1):
            faults.append(f"the solution of {label} is not folded (:class: dropdown)")
        elif not _code_between(notebook, f"{{solution-start}} {label}", "{solution-end}"):
            faults.append(f"the solution of {label} has no code that runs")
        elif not EXERCISE.search(_body(text, label)):
            faults.append(f"exercise {label} must begin with its kind, like '*Derive, easy, about 10 minutes.*'")
    kinds = {found["kind"] for label in labels if (found := EXERCISE.search(_body(text, label)))}
    if len(labels) >= MIN_EXERCISES and len(kinds) < 2:
        faults.append("the exercises are all of one kind; a chapter mixes deriving, coding and experiments")
    if not any("llmbook.exercises" in cell.source for _, cell in code(notebook)):
        faults.append("no exercise has a checker (llmbook.exercises)")
    return faults


def _body(text: str, label: str) -> str:
    """What stands in the exercise of this label, from behind its options."""
    start = re.search(rf":label: {re.escape(label)}\s*\n(?:(?::.*)?\n)*(?:```|:::)?\n*", text)
    return text[start.end() :] if start else ""


def _code_between(notebook: NotebookNode, start: str, end: str) -> bool:
    inside = False
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            inside = (inside or start in cell.source) and not (end in cell.source and inside)
        elif inside:
            return True
    return False


def quiz(notebook: NotebookNode) -> list[str]:
    """Before the exercises three questions, each with an answer folded below it."""
    text = "\n".join(t for _, t in prose(notebook))
    section = re.search(r"^## Three questions$(.*?)^## Exercises$", text, re.MULTILINE | re.DOTALL)
    if not section:
        return ["no section `## Three questions` before `## Exercises`"]
    asked = re.findall(r"^:::\{dropdown\} (.+)\n+(\S[^:]+)", section[1], re.MULTILINE)
    faults = [] if len(asked) == 3 else [f"{len(asked)} questions with an answer below; three are wanted"]
    return faults + [f"no question: {title!r}" for title, _ in asked if not title.endswith("?")]


def article_box(notebook: NotebookNode) -> list[str]:
    """At least one box says what the source article states, with § number and verdict."""
    boxes = re.findall(
        r"\{admonition\} What the article says\n(.*?)^(?:```|:::)",
        "\n".join(t for _, t in prose(notebook)),
        re.S | re.M,
    )
    if not boxes:
        return ["no {admonition} `What the article says`"]
    faults = []
    for box in boxes:
        if not re.search(r"\*\*(holds|holds with a condition|wrong|cannot be checked here)", box, re.I):
            faults.append(f"an article box without its verdict in bold: {box.strip()[-60:]!r}")
        if "§" not in box or ":class: article" not in box:
            faults.append("an article box needs `:class: article` and the article's § number")
    return faults


def closing(notebook: NotebookNode) -> list[str]:
    """`## Exercises`, then `## Summary`, which points to further reading by citation."""
    text = "\n".join(t for _, t in prose(notebook))
    summary = re.search(r"^## Summary$(.*)", text, re.MULTILINE | re.DOTALL)
    faults = [] if re.search(r"^## Exercises$", text, re.MULTILINE) else ["no section `## Exercises`"]
    if not summary:
        return [*faults, "no section `## Summary`"]
    if "{cite" not in summary.group(1):
        faults.append("the summary cites no further reading")
    return faults


# --- across chapters --------------------------------------------------------------------------------------


def copied_code(one: NotebookNode, other: NotebookNode) -> list[str]:
    """Six consecutive lines of code that two chapters share belong into llmbook."""
    theirs = {run for _, cell in code(other) for run in _line_runs(cell)}
    return [
        f"{name} repeats {COPIED_LINES} lines of another chapter: move them to llmbook"
        for name, cell in code(one)
        if theirs & set(_line_runs(cell))
    ]


def _line_runs(cell: NotebookNode) -> Iterator[tuple[str, ...]]:
    lines = [line.split("#")[0].strip() for line in cell.source.splitlines()]
    lines = [line for line in lines if line and not line.startswith(("import ", "from "))]
    for start in range(len(lines) - COPIED_LINES + 1):
        yield tuple(lines[start : start + COPIED_LINES])


GUARDS: tuple[Callable[[NotebookNode], list[str]], ...] = (
    executed, speaks_where_it_prints, outputs_of_this_source, canonical_form, unique_ids,
    errors_are_announced, no_stderr, no_paths, no_run_times, no_addresses, no_inventories, no_progress_bars,
    no_svg, described_images, measured_is_bounded, measured_by_function, claims_are_sound, has_claims,
    prose_figures_have_cells, short_cells, narrow_lines, folded_plumbing, plain_parameters, no_trailing_semicolon,
    safe_code, optional_cells_stand_alone, opening, quiz, exercises, article_box, closing,
)  # fmt: skip
