"""The spell check reads prose, not code. (It reads this file too: so a wrong word stands alone in its string.)"""

from __future__ import annotations

import spelling

WRONG, AMERICAN, IZE = "recieve", "behavior", "tokenizes"
PROSE = f"{WRONG} {AMERICAN} {IZE}"
MARKDOWN = """# A {} heading

Text, [a {} link](https://example.org), {{term}}`a {} term`,
{{ref}}`a {} name <ch-01>`

| a | b |
|---|---|
| c | a {} cell |

```{{admonition}} A {} title
:class: note
- a {} item
```
"""
CODE = """The `{0}` of {{cite:p}}`{0}`, {{ref}}`{0}`, $\\mathrm{{{0}}}$ and https://example.org/{0}. [Here](https://{0}.org)

({0})=
```python
{0}(color=1)
```

```{{math}}
:label: {0}
{0}
```
"""


def found(prose) -> list[str]:
    return spelling.faults([("here", list(prose))])


def test_wrong_words_are_found_with_their_line_and_what_is_wanted():
    assert found([(3, PROSE)]) == [
        f"here:3: {AMERICAN} → behaviour",
        f"here:3: {WRONG} → receive",
        f"here:3: {IZE} → tokenises",
    ]


def test_sizes_and_names_are_no_faults():
    text = "The size of a prize, resized; seized by its maize; Horizon, citizen. Bureau of Labor Statistics."
    assert found([(1, text)]) == []


def test_prose_of_markdown_is_read_wherever_it_stands():
    lines = [fault.split(": ")[0] for fault in found(spelling.markdown(MARKDOWN.format(*[WRONG] * 8)))]
    assert lines == [f"here:{line}" for line in (1, 3, 3, 4, 8, 10, 12)]


def test_code_of_markdown_is_not_read():
    assert found(spelling.markdown(CODE.format(WRONG))) == []


def test_comments_docstrings_and_sentences_are_read():
    lines = [
        "def f():",
        '    """A {0}.',
        "",
        '    Two {0}s."""',
        "    x = 1  # three {0}",
        "    return f'{{x}} is {0}'",
    ]
    faults = found(spelling.python("\n".join(lines).format(AMERICAN) + "\n"))
    assert [fault.split(": ")[0] for fault in faults] == ["here:2", "here:4", "here:5", "here:6"]


def test_names_in_python_are_not_read():
    lines = [
        "def {0}({0}='{0}'):",
        '    """The ``{0}`` of :func:`{0}`: {0}.x and x_{0}, https://{0}.org.',
        "",
        "    >>> {0}(1)",
        '    """',
    ]
    assert found(spelling.python("\n".join(lines).format(AMERICAN) + "\n")) == []


def test_a_notebook_names_the_cell_and_reads_captions(tmp_path, monkeypatch):
    monkeypatch.setattr(spelling, "ROOT", tmp_path)
    shown = {"mystnb": {"figure": {"caption": f"A {WRONG}."}, "image": {"alt": "A line."}}}
    cells = [
        spelling.nb.nbformat.v4.new_markdown_cell(f"Text.\n\nA {WRONG}."),
        spelling.nb.nbformat.v4.new_code_cell("x", metadata=shown),
    ]
    spelling.nb.write(spelling.nb.nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    read = dict(spelling.notebook(tmp_path / "a.ipynb"))
    assert read == {
        "a.ipynb, cell 0": [(1, "Text."), (3, f"A {WRONG}.")],
        "a.ipynb, cell 1": [(0, f"A {WRONG}."), (0, "A line.")],
    }
