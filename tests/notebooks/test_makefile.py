"""The Makefile in a project of its own, whose path has spaces and non-Latin letters."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import notebook as nb
import pytest

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the Makefile beside a .venv that says it is ready."""
    folder = tmp_path / "a book, 书"
    (folder / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "requirements.txt", "constraints.txt", "pyproject.toml"):
        shutil.copy(nb.ROOT / name, folder)
    (folder / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (folder / ".venv" / ".ready").write_text(f"{folder}\n")
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=1800)


def test_what_is_ready_is_not_set_up_again(project):
    assert "Nothing to be done" in make(project, "-n", "setup").stdout


def test_a_moved_project_is_set_up_again(project):
    moved = project.rename(project.with_name("elsewhere"))
    said = make(moved, "-n", "setup").stdout
    assert "-m venv --clear" in said
    assert f'grep -qF "{moved}/.venv"' in said


def test_other_requirements_are_installed(project):
    later = time.time() + 60
    os.utime(project / "requirements.txt", (later, later))
    assert "pip install" in make(project, "-n", "setup").stdout


def test_every_benchmark_runs_even_when_one_falls_short(project):
    folder = project / "tests" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "bench_a.py").write_text("print('a fell short')\nraise SystemExit(1)\n")
    (folder / "bench_b.py").write_text("import os\nprint('b ran on', os.environ['OMP_NUM_THREADS'])\n")
    done = make(project, "bench")
    assert done.returncode != 0
    assert "a fell short" in done.stdout
    assert "b ran on 1" in done.stdout
    (folder / "bench_a.py").write_text("")
    assert make(project, "bench").returncode == 0


def test_check_asks_for_its_chapter(project):
    done = make(project, "check")
    assert done.returncode != 0
    assert "name the chapter: make check CH=03" in done.stderr


def test_help_lists_every_target_that_a_reader_needs(project):
    said = make(project, "help").stdout
    for target in ("book", "test", "check", "lab", "data", "models", "bench", "notebooks", "ledger", "clean"):
        assert f"\n{target} " in f"\n{said}"
