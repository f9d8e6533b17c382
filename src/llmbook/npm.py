"""Packages of the JavaScript registry, fetched by npm at one fixed version and kept; none of their scripts run."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from llmbook import zoo

PATIENCE = 180  # seconds; a registry that does not answer is none
QUIET = ("--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=0")


class NotBrought(RuntimeError):
    """The package is not here and npm did not bring it; the message says why."""


def package(name: str, version: str, files: Sequence[str]) -> Path:
    """The package's folder, with these files in it: from the cache, else from npm.

    Raises:
        NotBrought: without npm, or where the registry does not answer or lacks the package or a file.
    """
    kept = zoo.cache_folder() / f"{name}-{version}"
    folder = kept / "node_modules" / name
    if not all((folder / file).is_file() for file in files):
        _install(name, version, kept)
    if lacking := [file for file in files if not (folder / file).is_file()]:
        raise NotBrought(f"{name} {version} has no {', '.join(lacking)}")
    return folder


def _install(name: str, version: str, folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise NotBrought(f"no npm on the PATH, which brings {name}")
    folder.mkdir(parents=True, exist_ok=True)
    command = [npm, "install", "--prefix", str(folder), *QUIET, f"{name}@{version}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise NotBrought(f"npm did not bring {name} {version} within {PATIENCE} s") from None
    if done.returncode:
        raise NotBrought(f"npm could not bring {name} {version}: {done.stderr.strip()[-200:]}")
