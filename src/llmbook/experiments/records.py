"""Rows of long runs, one JSON object a line, in a file that can be stopped and resumed; and what a code does."""

from __future__ import annotations

import ast
import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmbook.files import write_whole

Row = dict[str, Any]


def load(path: str | Path, fields: Mapping[str, type], key: Sequence[str], command: str) -> list[Row]:
    """The rows of a file, in its order; none where there is no file.

    Raises ``ValueError`` that names the line for what is no row: bad JSON, a field that is missing, of another type
    or not finite, or a ``key`` that occurs twice. ``command`` is what computes the row again.
    """
    path = Path(path)
    if not path.exists():
        return []
    rows: dict[tuple[Any, ...], Row] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        where = f"{path.name}, line {number}"
        row = _parse(line, fields, where, f"; delete the line, and `{command}` computes it again")
        if (name := tuple(row[field] for field in key)) in rows:
            raise ValueError(f"{where}: {name} is there already; delete one of the two lines")
        rows[name] = row
    return list(rows.values())


def _parse(line: str, fields: Mapping[str, type], where: str, advice: str) -> Row:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON ({error}){advice}") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row must be an object, got {type(row).__name__}{advice}")
    for name, kind in fields.items():
        value = row.get(name)
        good = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
        if not good or (kind is float and not math.isfinite(value)):
            raise ValueError(f"{where}: {name} must be a {kind.__name__}, got {value!r}{advice}")
    return row


def save(rows: Iterable[Row], path: str | Path, place: Callable[[Row], Any]) -> None:
    """Write rows in the order of their ``place``, under a temporary name, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in sorted(rows, key=place)]
    write_whole(path, "".join(lines))


@contextmanager
def from_the_shell(command: str, *errors: type[Exception]) -> Iterator[None]:
    """End a run as a shell expects: what is wrong in one line (exit 1), or after Ctrl-C how to go on (exit 130)."""
    try:
        yield
    except errors as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print(f"\nstopped; what was finished is kept, `{command}` goes on from there", file=sys.stderr)
        sys.exit(130)


def outline(source: str) -> str:
    """A text for what code does: its syntax tree, without docstrings and whatever is empty.

    Python's own texts will not do: those of ``ast.dump`` and ``ast.unparse`` change from version to version.
    """
    return repr(_outline(ast.parse(source)))


def _outline(node: Any) -> Any:
    if isinstance(node, list):
        return [_outline(entry) for entry in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = dict(ast.iter_fields(node))
    documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
    if documented and ast.get_docstring(node) is not None:
        fields["body"] = node.body[1:]
    if isinstance(node, ast.JoinedStr):  # Python 3.12 puts empty strings into some f-strings
        fields["values"] = [v for v in node.values if not (isinstance(v, ast.Constant) and v.value == "")]
    return type(node).__name__, [(name, _outline(v)) for name, v in fields.items() if v is not None and v != []]
