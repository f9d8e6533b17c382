"""Execute and check the chapters. `python tools/chapters.py --help` lists the commands.

run        execute chapters through papermill at their defaults, and store them without run metadata
papermill  execute every chapter with another seed, in a temporary folder: the claims must hold
nbval      execute every chapter at its defaults: the stored outputs must come out again
summary    count chapters, cells and claims
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any
from unittest import mock

import kernel_transport
import nbformat
import notebook as nb
from nbformat import NotebookNode
from traitlets.config import Config

TOOLS = Path(__file__).resolve().parent
STATED_LIMIT = 60  # processor seconds; exceeding it is reported
HARD_LIMIT = 1800  # seconds; then a cell is stopped: machines are shared, and slow is no failure
WORKERS = min(2, os.cpu_count() or 1)
KERNEL_SETTINGS = """
c.Application.log_level = 'ERROR'
c.InteractiveShellApp.extensions = ['default_generator']  # tools/offline: no draw that no seed governs
"""


@dataclass
class Result:
    """What became of one execution of a chapter."""

    chapter: str
    seconds: float = 0.0  # of processor time: a busy machine adds none
    claims: list[dict[str, Any]] = field(default_factory=list)
    skipped: nb.Skipped = field(default_factory=dict)  # tag: (cells, claims) that were left out
    error: str = ""


class ChapterError(Exception):
    """A chapter did not run; the message names the chapter, the cell and the error."""


def environment(threads: int, folder: Path) -> dict[str, str]:
    """The variables under which kernels start: threads, no network, none of the user's IPython settings."""
    profile = folder / "ipython" / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(KERNEL_SETTINGS)
    path = os.pathsep.join(p for p in (str(TOOLS / "offline"), str(TOOLS), os.environ.get("PYTHONPATH")) if p)
    threads_text = str(threads)
    return os.environ | {
        "PYTHONPATH": path,
        "IPYTHONDIR": str(folder / "ipython"),
        "OMP_NUM_THREADS": threads_text,
        "MKL_NUM_THREADS": threads_text,
        "OPENBLAS_NUM_THREADS": threads_text,
        "NUMBA_NUM_THREADS": threads_text,
        "OMP_WAIT_POLICY": "PASSIVE",  # two chapters share the cores: do not spin while waiting
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def corpora_are_here() -> bool:
    """Whether the optional NLTK corpora, which `reality-check` cells read, are on this machine."""
    from llmbook import corpora

    return all(corpora.available(name) for name in corpora.NLTK_PACKAGES)


def models_are_here() -> bool:
    """Whether the real pre-trained models, which `real-model` cells load, are on this machine."""
    from llmbook import pretrained

    return all(pretrained.available(name) for name in pretrained.MODELS)


def absent() -> tuple[str, ...]:
    """The tags of the cells that cannot run on this machine."""
    here = {"reality-check": corpora_are_here(), "real-model": models_are_here()}
    return tuple(tag for tag, is_here in here.items() if not is_here)


def check_parameters(notebook: NotebookNode, given: dict[str, Any], chapter: str) -> None:
    """Refuse a parameter that the chapter doesn't have: papermill would only warn."""
    known = nb.parameters(notebook)
    for name in given:
        if name not in known:
            raise ChapterError(f"{chapter} has no parameter {name!r}; it has: {', '.join(known) or 'none'}")


def first_error(notebook: NotebookNode) -> str | None:
    """The first error that its cell's tags don't announce: cell number, first line, error."""
    for index, cell in enumerate(nb.code_cells(notebook), start=1):
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in nb.tags(cell):
                line = cell.source.strip().splitlines()[0] if cell.source.strip() else ""
                trace = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(output.traceback[-3:]))
                return f"code cell {index} ({line!r}): {output.ename}: {output.evalue}\n{trace}"
    return None


def execute(notebook: NotebookNode, chapter: str, given: dict[str, Any], threads: int = 1) -> NotebookNode:
    """Run a notebook through papermill in a fresh kernel and an empty folder; return it executed.

    Raises :class:`ChapterError` on an unknown parameter, an error in a cell, or after the hard limit.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    check_parameters(notebook, given, chapter)
    with tempfile.TemporaryDirectory(prefix="chapter-") as folder:
        source, target = Path(folder, "in.ipynb"), Path(folder, "out.ipynb")
        work = Path(folder, "work")
        work.mkdir()
        notebook.metadata = nbformat.from_dict(nb.NOTEBOOK_METADATA)
        nb.write(notebook, source)
        try:
            with mock.patch.dict(os.environ, environment(threads, Path(folder))):
                papermill.execute_notebook(
                    source, target, given, kernel_name="python3", cwd=work, progress_bar=False,
                    execution_timeout=HARD_LIMIT,
                    config=Config({"KernelManager": kernel_transport.sockets(folder)}),
                )  # fmt: skip
        except PapermillExecutionError:
            pass  # papermill ignores the tag raises-exception: first_error decides
        except Exception as error:
            raise ChapterError(f"{chapter}: {type(error).__name__}: {error}") from error
        executed = nb.read(target)
    executed.cells = [c for c in executed.cells if "papermill-error-cell-tag" not in nb.tags(c)]
    if error := first_error(executed):
        raise ChapterError(f"{chapter}, {error}")
    return executed


def formatted(notebook: NotebookNode) -> NotebookNode:
    """The notebook with its code as `make lint` wants it: formatting later would part it from its outputs."""
    with tempfile.TemporaryDirectory(prefix="chapter-") as folder:
        copy = Path(folder, "chapter.ipynb")
        nb.write(notebook, copy)
        settings = ["--quiet", "--config", str(nb.ROOT / "notebooks" / "ruff.toml"), str(copy)]
        for command in (["check", "--select", "I", "--fix"], ["format"]):
            # Code that cannot be parsed fails later, in its cell, with its name.
            subprocess.run([sys.executable, "-m", "ruff", *command, *settings], check=False)
        return nb.read(copy)


def processor_time() -> float:
    """Seconds that this process's kernels have computed, those that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def run_one(path: Path, given: dict[str, Any], output: Path) -> Result:
    """Execute a chapter and store it at ``output``; on failure, ``output`` stays as it was."""
    start = processor_time()
    notebook = formatted(nb.read(path))
    for cell in nb.code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
        cell.metadata["executed_source"] = nb.source_hash(cell)
    try:
        executed = nb.canonical(execute(notebook, path.stem, given))
    except ChapterError as error:
        return Result(path.stem, processor_time() - start, error=str(error))
    output.parent.mkdir(parents=True, exist_ok=True)
    nb.write(executed, output)
    return Result(path.stem, processor_time() - start, [record for _, record in nb.claims(executed)])


def rerun_one(path: Path, given: dict[str, Any], without: tuple[str, ...] = ()) -> Result:
    """Execute a copy of a chapter without the cells of these tags; its claims, or what failed."""
    start = processor_time()
    notebook = nb.read(path)
    result = Result(path.stem, skipped=nb.drop_tagged(notebook, without))
    try:
        executed = execute(notebook, path.stem, given)
        result.claims = [record for _, record in nb.claims(executed)]
        result.error = other_claims(path.stem, nb.claims(notebook), result.claims)
    except ChapterError as error:
        result.error = str(error)
    result.seconds = processor_time() - start
    return result


def other_claims(chapter: str, stored: Iterable[tuple], found: list[dict[str, Any]]) -> str:
    """What to report where a run makes other claims than the stored chapter; else nothing."""
    differing = {record["text"] for _, record in stored} ^ {record["text"] for record in found}
    return f"{chapter}: claims made in only one of the two runs: {sorted(differing)}" if differing else ""


def in_parallel(function: Any, jobs: list[tuple]) -> list[Result]:
    """Do the jobs, two at a time, each in a process of its own; report each as it ends."""
    results = []
    pool = ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn"))
    try:
        futures = {pool.submit(function, *job): number for number, job in enumerate(jobs)}
        for future in as_completed(futures):
            results.append((futures[future], future.result()))
            report(results[-1][1])
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]


def report(result: Result) -> None:
    """One line for a chapter, and its error if there is one."""
    if result.error:
        print(f"✗ {result.error}", flush=True)
        return
    line = f"✓ {result.chapter}: {len(result.claims)} claims, {result.seconds:.0f} s of processor time"
    if result.seconds > STATED_LIMIT:
        line += f" (above the {STATED_LIMIT} s that a chapter may take; the first run trains what is kept)"
    print(line + "".join(f"; {left_out}" for left_out in described(result.skipped)), flush=True)


def described(skipped: nb.Skipped) -> list[str]:
    """What was left out, in words, and how to bring it."""
    mend = {"reality-check": "no NLTK corpora here: make data", "real-model": "no model here: make models"}
    return [
        f"skipped {cells} {tag} cells with {claims} claims ({mend[tag]})" for tag, (cells, claims) in skipped.items()
    ]


def warm_up() -> None:
    """Let matplotlib build its font cache once, here: in a chapter it would write to stderr."""
    subprocess.run([sys.executable, "-c", "import matplotlib.font_manager"], check=True, capture_output=True)


@contextmanager
def shared_model(seed: int, chapters: list[Path]) -> Iterator[None]:
    """Beside the first of all chapters, train what 13 to 16 share: else each of two at a time would train it."""
    if len(chapters) < len(nb.find_chapters()):
        yield
        return
    command = [sys.executable, "-c", f"from llmbook import zoo; zoo.toyworld_gpt({seed})"]
    variables = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=variables, stderr=subprocess.DEVNULL) as training:
        try:
            yield
        finally:
            training.send_signal(signal.SIGINT)  # it has long ended, or nobody needs it any more


def command_run(args: argparse.Namespace) -> int:
    """`run`: defaults overwrite the chapter; other parameters go to _build/chapters/."""
    given = {name: literal(value) for name, value in args.parameter}
    folder = nb.ROOT / "_build" / "chapters" if given else args.folder
    jobs = [(path, given, folder / path.name) for path in nb.find_chapters(args.chapters, args.folder)]
    warm_up()
    results = in_parallel(run_one, jobs)
    if given:
        print(f"Parameters were given, so the results went to {folder.relative_to(nb.ROOT)}/")
    return int(any(result.error for result in results))


def command_rerun(args: argparse.Namespace) -> int:
    """`papermill`: every claim holds at another seed, on one thread."""
    without = absent()
    warm_up()
    chapters = nb.find_chapters(args.chapters, args.folder)
    with shared_model(args.seed, chapters):
        results = in_parallel(rerun_one, [(path, {"seed": args.seed}, without) for path in chapters])
    held = sum(len(result.claims) for result in results)
    failed = sum(bool(result.error) for result in results)
    skipped = sum(claims for result in results for _, claims in result.skipped.values())
    print(f"{held} claims hold at seed {args.seed}; {failed} chapters failed; {skipped} claims skipped")
    return int(failed > 0 or not results)


def command_nbval(args: argparse.Namespace) -> int:
    """`nbval`: each stored output comes out again (measured numbers are masked)."""
    without = absent()
    warm_up()
    chapters = nb.find_chapters(args.chapters, args.folder)
    if not chapters:
        print("no chapters found")
        return 1
    with tempfile.TemporaryDirectory(prefix="nbval-") as folder:
        copies = Path(folder, "chapters")
        copies.mkdir()
        for path in chapters:
            notebook = nb.read(path)
            for left_out in described(nb.drop_tagged(notebook, without)):
                print(f"{path.stem}: {left_out}", flush=True)
            nb.write(notebook, copies / path.name)
        variables = environment(threads=WORKERS, folder=Path(folder)) | {"TMPDIR": folder}  # sockets too
        with shared_model(0, chapters):
            return subprocess.run(nbval_command(copies), env=variables, cwd=copies).returncode


def nbval_command(folder: Path) -> list[str]:
    """pytest with nbval alone, strict, two notebooks at a time."""
    return [
        sys.executable, "-m", "pytest", str(folder), "--rootdir", str(folder), "-c", os.devnull,
        "-q", "--tb=short", "-p", "no:cacheprovider", "-p", "kernel_transport",
        "-n", str(WORKERS), "--dist", "loadscope",
        "--nbval", "--nbval-current-env", "--nbval-sanitize-with", str(TOOLS / "nbval_sanitize.cfg"),
        f"--nbval-cell-timeout={HARD_LIMIT}",
    ]  # fmt: skip


def command_summary(args: argparse.Namespace) -> int:
    """`summary`: what there is."""
    total = [0, 0, 0]
    for path in nb.find_chapters(args.chapters, args.folder):
        notebook = nb.read(path)
        counts = len(notebook.cells), len(nb.code_cells(notebook)), len(list(nb.claims(notebook)))
        total = [a + b for a, b in zip(total, counts, strict=True)]
        tagged = nb.drop_tagged(notebook, nb.OPTIONAL)
        print(f"{path.stem}: {counts[0]} cells ({counts[1]} code), {counts[2]} claims",
              *(f"{claims} in {cells} {tag} cells" for tag, (cells, claims) in tagged.items()), sep=", ")  # fmt: skip
    print(f"in all: {total[0]} cells ({total[1]} code), {total[2]} claims")
    return 0


def literal(text: str) -> Any:
    """A Python literal where the text is one, otherwise the text."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=nb.CHAPTERS, help="where the chapters are")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, function in (
        ("run", command_run),
        ("papermill", command_rerun),
        ("nbval", command_nbval),
        ("summary", command_summary),
    ):
        command = commands.add_parser(name, help=function.__doc__)
        command.add_argument("chapters", nargs="*", help="chapter numbers; all if none is given")
        command.set_defaults(function=function)
        if name == "run":
            command.add_argument("-p", dest="parameter", nargs=2, metavar=("NAME", "VALUE"), action="append",
                                 default=[], help="a parameter of the chapter; may be repeated")  # fmt: skip
        if name == "papermill":
            command.add_argument("--seed", type=int, default=1)
    return parser


def main() -> int:
    args = build_parser().parse_args()
    try:
        return args.function(args)
    except (ChapterError, ValueError) as error:
        print(f"✗ {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the stored chapters are as they were.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
