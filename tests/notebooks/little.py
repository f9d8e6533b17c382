"""A little chapter in which nothing is wrong, for tests that plant a fault in it."""

from __future__ import annotations

from typing import Any

import nbformat
import notebook as nb
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

OPENING = """(ch-90)=
# A little chapter

**What you will be able to do**

- add two numbers,
- subtract two numbers,
- tell a sum
  from a difference.

**Prerequisites:** none.

**Run time:** under 5 s on one core.

**Run it:** `make lab` in the project's folder, or download {download}`this notebook <90_little.ipynb>`.
"""

ARTICLE = """```{admonition} What the article says
:class: article
Sums are hard (§ 4.1). **Wrong**: see above.
```"""

SUMMARY = """## Summary

The sum is large. Further reading: {cite:t}`shannon1948mathematical`."""

QUESTION = """:::{dropdown} What is one and one and %d?
A sum: it is large.
:::"""

QUIZ = "\n\n".join(["## Three questions", *(QUESTION % n for n in (1, 2, 3))])

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def little() -> NotebookNode:
    """The chapter, as `make notebooks` would store it."""
    claim = {
        "text": "The sum is large", "value": 3.0, "at_least": 2.0, "at_most": None, "equals": None,
        "tol": None, "bound": "≥ 2",
    }  # fmt: skip
    cells = [
        new_markdown_cell(OPENING),
        new_code_cell("seed = 0  # of every generator\nsizes = [1, -2]  # GPU: 1000", metadata=tagged("parameters")),
        new_code_cell(
            "from llmbook.claims import claim, measured\nfrom llmbook.exercises import check",
            metadata=tagged("hide-input")),
        new_markdown_cell("## Is a sum large?\n\nTake the weight 0.25, half of which is 12.5%: $x = 0.77$."),
        new_code_cell("weight = 0.25\nprint(weight / 2)\nprint(measured(1 + 2))", outputs=[stream("0.125\n≈3\n")]),
        new_code_cell("claim('The sum is large', 1.0 + 2, at_least=2)", metadata=tagged("hide-input"), outputs=[
            display("✓ The sum is large: ≈3 (claimed ≥ 2)", claim=claim)]),
        new_code_cell("show(picture)", metadata={"tags": ["hide-input"], "mystnb": {
            "image": {"alt": "A white square on a white ground."},
            "figure": {"caption": "All is white.", "name": "fig-little"}}},
            outputs=[new_output("display_data", {"image/png": PIXEL, "text/plain": "<Figure>"})]),
        new_code_cell("1 / 0", metadata=tagged("raises-exception"), outputs=[
            new_output("error", ename="ZeroDivisionError", evalue="division by zero",
                       traceback=["ZeroDivisionError: division by zero"])]),
        new_code_cell("real = 3", metadata=tagged("reality-check")),
        new_markdown_cell(ARTICLE),
        new_markdown_cell(QUIZ + "\n\n## Exercises"),
        *[cell for number in (1, 2, 3) for cell in exercise(number)],
        new_markdown_cell(SUMMARY),
    ]  # fmt: skip
    return finished(new_notebook(cells=cells))


def finished(notebook: NotebookNode) -> NotebookNode:
    """The notebook in its stored form, as if each cell had just run."""
    for cell in nb.code_cells(notebook):
        cell.metadata["executed_source"] = nb.source_hash(cell)
    return nb.canonical(notebook)


def exercise(number: int) -> list[NotebookNode]:
    """A stub and a folded solution."""
    label = f"ex-90-{number}"
    line = "*Derive, easy, about 5 minutes.*" if number == 1 else "*Code, hard, about 30 minutes.*"
    return [
        new_markdown_cell(f"```{{exercise-start}} Add\n:label: {label}\n```\n{line}\n\nAdd {number}."),
        new_code_cell(f"def add_{number}(x):\n    ..."),
        new_markdown_cell("```{exercise-end}\n```"),
        new_markdown_cell(f"```{{solution-start}} {label}\n:class: dropdown\n```"),
        new_code_cell(f"def add_{number}(x):\n    return x + {number}"),
        new_markdown_cell("```{solution-end}\n```"),
    ]


def tagged(tag: str) -> dict[str, Any]:
    return {"tags": [tag]}


def stream(text: str, name: str = "stdout") -> NotebookNode:
    return new_output("stream", name=name, text=text)


def display(text: str, **metadata: Any) -> NotebookNode:
    return new_output("display_data", {"text/plain": text}, metadata=nbformat.from_dict(metadata))


def with_cell(source: str, *outputs: NotebookNode, at: int = 5, **metadata: Any) -> NotebookNode:
    """The little chapter with one more code cell, before cell ``at`` (after the first section's start)."""
    notebook = little()
    notebook.cells.insert(at, new_code_cell(source, outputs=list(outputs), metadata=metadata))
    return finished(notebook)
