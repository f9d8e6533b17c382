"""`make book`: whole or not at all, whatever interrupts it."""

from __future__ import annotations

import multiprocessing
import sys
import textwrap
from pathlib import Path

import build
import pytest

TOC = "format: jb-book\nroot: book/intro\nparts:\n- caption: One\n  chapters:\n  - file: notebooks/01_a\n"


def fake(tmp_path: Path, body: str) -> list[str]:
    """A stand-in for jupyter-book, which writes into the folder that it is given."""
    script = tmp_path / "fake.py"
    script.write_text(
        "import sys, pathlib\nhtml = pathlib.Path(sys.argv[4]) / '_build' / 'html'\n"
        "fresh = not html.exists()\nhtml.mkdir(parents=True, exist_ok=True)\n"
        "def page(name, text='whole'):\n"
        "    (html / name).parent.mkdir(parents=True, exist_ok=True)\n    (html / name).write_text(text)\n"
        + textwrap.dedent(body)
    )
    return [sys.executable, str(script)]


WHOLE = "for name in ('index.html', 'book/intro.html', 'notebooks/01_a.html'): page(name, f'whole, fresh={fresh}')\n"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "a book, 书"
    folder.mkdir()
    (folder / "_toc.yml").write_text(TOC)
    return folder


def test_a_whole_book_takes_the_old_ones_place(root, tmp_path):
    final = build.build(root, fake(tmp_path, WHOLE))
    assert (final / "notebooks" / "01_a.html").read_text() == "whole, fresh=True"
    build.build(root, fake(tmp_path, WHOLE))
    assert (final / "index.html").read_text() == "whole, fresh=False"  # Sphinx finds its last work
    assert sorted(p.name for p in (root / "_build").iterdir()) == [".lock", "aside", "html"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("page('index.html', 'half')\nsys.exit(2)", "failed or warned"),
        (
            "import shutil\nshutil.rmtree(html)\npage('index.html', 'half')\npage('book/intro.html')",
            "left no notebooks/01_a",
        ),
    ],
)
def test_a_failed_build_leaves_the_old_book_and_the_next_begins_afresh(root, tmp_path, body, said):
    final = build.build(root, fake(tmp_path, WHOLE))
    with pytest.raises(build.BuildError, match=said):
        build.build(root, fake(tmp_path, body))
    assert (final / "index.html").read_text() == "whole, fresh=True"
    build.build(root, fake(tmp_path, WHOLE))
    assert (final / "index.html").read_text() == "whole, fresh=True"


@pytest.mark.parametrize("moment", ["build", "copy", "first rename", "second rename"])
def test_an_interruption_at_any_moment_is_healed_by_the_next_build(root, tmp_path, monkeypatch, moment):
    build.build(root, fake(tmp_path, WHOLE))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if moment == "build":
            patched.setattr(build.subprocess, "run", interrupt)
        elif moment == "copy":
            patched.setattr(build.shutil, "copytree", lambda a, b: (Path(b).mkdir(), interrupt()))
        else:
            rename, calls = Path.rename, []

            def counting(self, target):
                calls.append(self)
                return interrupt() if len(calls) == (1 if moment == "first rename" else 2) else rename(self, target)

            patched.setattr(Path, "rename", counting)
        with pytest.raises(KeyboardInterrupt):
            build.build(root, fake(tmp_path, WHOLE))
    final = build.build(root, fake(tmp_path, WHOLE))
    assert all((final / page).read_text().startswith("whole") for page in build.pages(root))
    assert sorted(p.name for p in (root / "_build").iterdir()) == [".lock", "aside", "html"]


def hold(folder, held, release):
    with build.alone(folder):
        held.set()
        release.wait(30)


def test_two_builds_at_once_are_refused(root, tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=hold, args=(root / "_build", held, release))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(build.BuildError, match="another build is at work"):
            build.build(root, fake(tmp_path, WHOLE))
    finally:
        release.set()
        other.join()
