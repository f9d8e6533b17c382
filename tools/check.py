"""Check one chapter after a change: `make check CH=03`, in about two minutes on two free cores.

Its guards; then papermill at another seed and nbval at the defaults, side by side; then its page in the built
book. The whole suite is `make test`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import notebook as nb

Step = tuple[str, list[str]]


def steps(stem: str) -> list[list[Step]]:
    """What to run for a chapter: groups one after another, the steps of a group side by side."""
    chapters = [sys.executable, str(nb.ROOT / "tools" / "chapters.py")]
    pytest = [sys.executable, "-m", "pytest", "-q"]
    return [
        [("guards", [*pytest, "tests/notebooks/test_chapters.py", "-k", stem])],
        [
            ("claims at seed 1", [*chapters, "papermill", stem, "--seed", "1"]),
            ("outputs", [*chapters, "nbval", stem]),
        ],
        [("build", [sys.executable, str(nb.ROOT / "tools" / "build.py")])],
        [("page", [*pytest, "tests/book/test_pages.py", "-k", stem])],
    ]


def run(step: Step) -> tuple[str, int, str, float]:
    """Run one step; its name, exit status, what it printed, and its seconds."""
    name, command = step
    start = time.monotonic()
    done = subprocess.run(
        command, cwd=nb.ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    return name, done.returncode, done.stdout, time.monotonic() - start


def main() -> int:
    try:
        (path,) = nb.find_chapters(sys.argv[1:2])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    failed = []
    try:
        for group in steps(path.stem):
            with ThreadPoolExecutor(len(group)) as pool:
                for name, status, said, seconds in pool.map(run, group):
                    print(f"{'✗' if status else '✓'} {name} ({seconds:.0f} s)", flush=True)
                    if status:
                        failed.append(name)
                        print(said, flush=True)
    except KeyboardInterrupt:
        print("Interrupted; nothing was changed.", file=sys.stderr)
        return 130
    print(f"{path.stem}: " + (f"failed: {', '.join(failed)}" if failed else "all of it holds"))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
