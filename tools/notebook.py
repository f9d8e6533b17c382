"""What the tools share about a chapter: find it, read it, make it canonical, read its claims."""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from llmbook.files import write_whole

ROOT = Path(__file__).resolve().parents[1]
CHAPTERS = ROOT / "notebooks"

OPTIONAL = ("reality-check", "real-model")  # tags of cells that need what a reader may not have
FOLDED = ("hide-input", "hide-cell")  # tags of cells whose code the page folds
Skipped = dict[str, tuple[int, int]]  # tag: (cells, claims) left out

KEPT_CELL_METADATA = ("tags", "mystnb", "executed_source")
KEPT_OUTPUT_METADATA = ("claim",)
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"file_extension": ".py", "name": "python", "pygments_lexer": "ipython3"},
}


def find_chapters(numbers: list[str] | None = None, folder: Path = CHAPTERS) -> list[Path]:
    """The notebooks with these numbers (``"3"``, ``"03"`` or ``"03_word2vec"``), or all, in order."""
    chapters = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if not numbers:
        return chapters
    found = []
    for number in numbers:
        stem = Path(number).stem
        match = [c for c in chapters if c.stem == stem or c.stem[:2] == stem.zfill(2)]
        if not match:
            names = ", ".join(c.stem for c in chapters) or "none"
            raise ValueError(f"no chapter {number!r} in {folder.name}/; there are: {names}")
        found += match
    return found


def read(path: Path) -> NotebookNode:
    """A notebook in format 4."""
    return nbformat.read(path, as_version=4)


def write(notebook: NotebookNode, path: Path) -> None:
    """Store under a temporary name, then rename: an interrupted run leaves the old file whole."""
    write_whole(path, nbformat.writes(notebook) + "\n")


def tags(cell: NotebookNode) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The code cells, in order."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def source_hash(cell: NotebookNode) -> str:
    """Twelve hexadecimal digits that change with the cell's source."""
    return hashlib.sha256(cell.source.encode()).hexdigest()[:12]


def parameters(notebook: NotebookNode) -> dict[str, Any]:
    """The names and default values of the cell tagged ``parameters``."""
    values = {}
    for cell in code_cells(notebook):
        if "parameters" in tags(cell):
            for statement in ast.parse(cell.source).body:
                values |= _assignment(statement)
    return values


def _assignment(statement: ast.stmt) -> dict[str, Any]:
    target = statement.targets[0] if isinstance(statement, ast.Assign) else getattr(statement, "target", None)
    if not isinstance(target, ast.Name):
        return {}
    try:
        return {target.id: ast.literal_eval(statement.value)}
    except ValueError:
        return {target.id: None}  # the guards report a parameter that isn't a literal


def claims(notebook: NotebookNode) -> Iterator[tuple[NotebookNode, dict[str, Any]]]:
    """Each claim that the stored outputs record, with its cell."""
    for cell in code_cells(notebook):
        for output in cell.outputs:
            if "claim" in output.get("metadata", {}):
                yield cell, output.metadata.claim


def drop_tagged(notebook: NotebookNode, unwanted: Sequence[str]) -> Skipped:
    """Take out the cells with one of these tags; for each tag, how many cells and how many claims that were."""
    skipped = {}
    for tag in unwanted:
        dropped = [cell for cell in notebook.cells if tag in tags(cell)]
        lost = sum(any(cell is d for d in dropped) for cell, _ in claims(notebook))
        notebook.cells = [cell for cell in notebook.cells if tag not in tags(cell)]
        if dropped:
            skipped[tag] = (len(dropped), lost)
    return skipped


def canonical(notebook: NotebookNode) -> NotebookNode:
    """Strip what one run adds (times, paths, injected cells); name cells by their source; renumber."""
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in tags(cell)]
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    notebook.nbformat_minor = 5
    seen: dict[str, int] = {}
    for count, cell in enumerate(code_cells(notebook), start=1):
        cell.execution_count = count
        cell.outputs = [_clean_output(output, count) for output in _merge_streams(cell.outputs)]
    solutions = solution_cells(notebook)
    for index, cell in enumerate(notebook.cells):
        cell.metadata = nbformat.from_dict({k: cell.metadata[k] for k in KEPT_CELL_METADATA if cell.metadata.get(k)})
        # The page folds these by itself, JupyterLab only where it is told to.
        if index in solutions or (cell.cell_type == "code" and set(tags(cell)) & set(FOLDED)):
            cell.metadata["jupyter"] = {"source_hidden": True}
        name = source_hash(cell)[:8]
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
    return notebook


def solution_cells(notebook: NotebookNode) -> set[int]:
    """The positions of the code cells between `solution-start` and `solution-end`."""
    inside, found = False, set()
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            starts, ends = (cell.source.rfind(f"{{solution-{word}}}") for word in ("start", "end"))
            inside = starts > ends or (inside and ends < 0)
        elif cell.cell_type == "code" and inside:
            found.add(index)
    return found


def _merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighbouring pieces of one stream: how a stream is cut is chance."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _clean_output(output: NotebookNode, count: int) -> NotebookNode:
    if output.output_type == "execute_result":
        output.execution_count = count
    if "metadata" in output:
        kept = {key: output.metadata[key] for key in KEPT_OUTPUT_METADATA if key in output.metadata}
        output.metadata = nbformat.from_dict(kept)
    if output.output_type == "error":  # the full traceback holds paths and colours
        output.traceback = [re.sub(r"\x1b\[[0-9;]*m", "", f"{output.ename}: {output.evalue}")]
    return output
