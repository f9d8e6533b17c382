"""Build the HTML of the book, so that the folder people open is always a whole book (`make book`).

Sphinx works in _build/aside, where it finds what it read the last time. Only a build without a warning is
copied beside _build/html, and then takes its place by renaming. An interrupted build leaves a mark, and the
next one starts afresh: Sphinx would take what it had read for what it had also written.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
JUPYTER_BOOK = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]  # its script dies in a move


class BuildError(RuntimeError):
    """The book was not built; the message says why. The book that was there is as it was."""


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, or say that somebody else does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(f"another build is at work in {folder}: wait for it, then run this again") from None
        yield


def build(root: Path = ROOT, command: list[str] = JUPYTER_BOOK) -> Path:
    """Build, check that every page is there, and put the new book in the old one's place. Returns its folder."""
    target = root / "_build"
    aside, unfinished = target / "aside", target / "aside.unfinished"
    with alone(target):
        if unfinished.exists() or not (aside / "_build" / "html").exists():
            shutil.rmtree(aside, ignore_errors=True)
        unfinished.touch()
        options = ["build", str(root), "--path-output", str(aside), "-W", "--keep-going", "-n", "--quiet"]
        if subprocess.run([*command, *options], check=False).returncode:
            raise BuildError("the build failed or warned (above); the book that was there is as it was")
        built = aside / "_build" / "html"
        if lacking := [page for page in pages(root) if not (built / page).is_file()]:
            raise BuildError(f"the build left no {', '.join(lacking)}")
        unfinished.unlink()
        return put_in_place(built, target / "html")


def pages(root: Path) -> list[str]:
    """The pages that the table of contents promises, and the one that opens the book."""
    import yaml

    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    chapters = [c["file"] for part in toc.get("parts", []) for c in part["chapters"]]
    return ["index.html", *(f"{name}.html" for name in (toc["root"], *chapters))]


def put_in_place(built: Path, final: Path) -> Path:
    """Copy beside the final folder, then rename twice: at no moment is half a book there."""
    new, old = final.with_name("html.new"), final.with_name("html.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(built, new)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    return final


def report(make: Callable[[], Path], errors: tuple[type[Exception], ...] = (BuildError,)) -> int:
    """Make the book and say where it is, or why it is not; the command's exit status."""
    try:
        final = make()
    except errors as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the book that was there is as it was.", file=sys.stderr)
        return 130
    print(f"The book is at {final}")
    return 0


def main() -> int:
    return report(lambda: build() / "index.html")


if __name__ == "__main__":
    sys.exit(main())
