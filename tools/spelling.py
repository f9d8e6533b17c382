"""A spell check of the prose, in British English: `python tools/spelling.py`.

The book's prose is British, but names in code are the field's, and those are American. So the prose is taken
out of its sources (Markdown without code, mathematics and addresses; comments, docstrings and sentences in
Python; both in notebooks) and given to typos, with the settings [tool.typos] of pyproject.toml. A word that is
right all the same belongs in those settings, with the reason.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tokenize
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import notebook as nb
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from myst_parser.config.main import MdParserConfig
from myst_parser.parsers.mdit import create_md_parser

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "pyproject.toml"
MARKDOWN = ("*.md", "book/*.md", "book/data/*.md")
PYTHON = ("src/**/*.py", "tools/**/*.py", "tests/**/*.py", "book/_ext/*.py")

Line = tuple[int, str]  # its number, and the prose on it
Source = tuple[str, list[Line]]  # the name that messages give it
Fault = tuple[int, str, str]  # the text's index, the word, what is wanted

# typos does not know every verb in -ize, and no list of them is whole: so the ending decides.
IZE = re.compile(r"\b([A-Za-z]+?i)z(e[drs]?|ers|ing|able|ations?)\b")
NOT_IZE = re.compile(r"((re|down|over|under|cap)?s|se|pr|ma)i", re.IGNORECASE)  # size, resize, seize, prize, maize

WORDS_AND_KEY = re.compile(r"(.+?)\s*<[^<>]*>", re.DOTALL)  # a role's content with a text of its own
DIRECTIVE = re.compile(r"\{([\w:-]+)\}(.*)")
CODE_DIRECTIVES = {"math", "raw", "code", "code-block", "code-cell", "bibliography", "toctree"}
PATH_AFTER = {"figure", "image"}  # what follows these names is no title
OPTION = re.compile(r"^:[\w-]+:.*$", re.MULTILINE)

CODE_IN_TEXT = re.compile(
    r"^\s*>>>.*$|(`+)[^`]+\1|:\w+:`[^`]*`|https?://\S+|\$[^$\n]+\$|\{[^{}]*\}|\w*(\\?[._]\w+)+|\\[a-zA-Z]+|<[^<>]+>",
    re.MULTILINE,
)
QUOTES = re.compile(r"^[rbuf]{0,2}['\"]+|['\"]+$", re.IGNORECASE)
SPOKEN = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}


@cache
def parser() -> MarkdownIt:
    """The Markdown parser that builds the book."""
    return create_md_parser(MdParserConfig(enable_extensions={"dollarmath", "colon_fence"}), RendererHTML)


def markdown(text: str, first: int = 1) -> Iterator[Line]:
    """The prose of a Markdown text whose first line has this number."""
    line = first
    for token in parser().parse(text):
        line = first + token.map[0] if token.map else line  # a table's cells have only the row's place
        if token.type == "inline":
            yield from _inline(token.children or [], line)
        elif token.type in ("fence", "colon_fence") and (directive := DIRECTIVE.match(token.info.strip())):
            kind, title = directive.groups()
            if kind not in CODE_DIRECTIVES:
                yield from markdown("" if kind in PATH_AFTER else title, line)
                yield from markdown(OPTION.sub("", token.content), line + 1)


def _inline(children: Iterable[Token], line: int) -> Iterator[Line]:
    for token in children:
        if token.type == "text":
            yield line, token.content
        elif token.type == "image":
            yield from _inline(token.children or [], line)
        elif token.type == "myst_role":
            words = WORDS_AND_KEY.fullmatch(token.content)
            if words or token.meta["name"] == "term":
                yield line, words[1] if words else token.content
        line += 1 if token.type in ("softbreak", "hardbreak") else token.content.count("\n")


def python(code: str) -> Iterator[Line]:
    """The comments of Python code, its docstrings and its strings of more than one word."""
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type not in SPOKEN:
            continue
        text = QUOTES.sub("", token.string)
        if token.type == tokenize.COMMENT or " " in text.strip():
            prose = CODE_IN_TEXT.sub(lambda found: " " + "\n" * found[0].count("\n"), text)
            yield from enumerate(prose.split("\n"), start=token.start[0])


def notebook(path: Path) -> Iterator[Source]:
    """The cells of a notebook; a figure's caption and alternative text count as line 0."""
    for index, cell in enumerate(nb.read(path).cells):
        lines = markdown(cell.source) if cell.cell_type == "markdown" else python(cell.source)
        shown = cell.metadata.get("mystnb", {})
        about = [shown.get("figure", {}).get("caption"), shown.get("image", {}).get("alt")]
        yield f"{name(path)}, cell {index}", [*((0, text) for text in about if text), *lines]


def name(path: Path) -> str:
    """A file's path in the project."""
    return path.relative_to(ROOT).as_posix()


def sources() -> Iterator[Source]:
    """Everything in the project that holds prose."""
    for globs, prose in ((MARKDOWN, markdown), (PYTHON, python)):
        for path in sorted(path for glob in globs for path in ROOT.glob(glob)):
            yield name(path), list(prose(path.read_text(encoding="utf-8")))
    for path in nb.find_chapters():
        yield from notebook(path)


def faults(checked: Iterable[Source]) -> list[str]:
    """`where:line: found → wanted` for each word that is wrong, in the order of the lines."""
    lines = [(f"{where}:{number}", " ".join(text.split())) for where, prose in checked for number, text in prose]
    texts = [text for _, text in lines]
    found = sorted({*_known_to_typos(texts), *_in_ize(texts)})
    return [f"{lines[index][0]}: {word} → {wanted}" for index, word, wanted in found]


def _known_to_typos(texts: list[str]) -> Iterator[Fault]:
    program = shutil.which("typos", path=sysconfig.get_path("scripts"))
    if program is None:
        raise FileNotFoundError("typos is not installed beside this Python: run `make setup`")
    with tempfile.TemporaryDirectory() as folder:
        prose = Path(folder, "prose.txt")
        prose.write_text("\n".join(texts), encoding="utf-8")
        command = [program, "--config", SETTINGS, "--format", "json", prose]
        run = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    if run.returncode not in (0, 2):  # 2: a word is wrong
        raise RuntimeError(f"typos stopped with {run.returncode}: {run.stderr.strip()}")
    for message in map(json.loads, run.stdout.splitlines()):
        if message["type"] == "typo":
            yield message["line_num"] - 1, message["typo"], " or ".join(message["corrections"])


def _in_ize(texts: list[str]) -> Iterator[Fault]:
    settings = tomllib.loads(SETTINGS.read_text(encoding="utf-8"))["tool"]["typos"]["default"]
    allowed = re.compile("|".join(settings["extend-ignore-re"]))
    for index, text in enumerate(texts):
        for match in IZE.finditer(allowed.sub(" ", text)):
            if not NOT_IZE.fullmatch(match[1]):
                yield index, match[0], f"{match[1]}s{match[2]}"


def main() -> int:
    """Check the project; 1 if a word is wrong."""
    found = faults(sources())
    print("\n".join(found) or "spelling: no word is wrong")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
