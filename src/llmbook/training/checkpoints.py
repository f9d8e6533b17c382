"""Checkpoints: written whole, kept by twos, and read again only into the run that they are of.

A checkpoint is a folder ``step-00001000/`` with the weights, the optimiser's moments and ``state.json``. It is
written under another name, flushed to the disk and then renamed, so a crash leaves it whole or not at all. The
one before it stays: a damaged newest is passed over with a warning.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn

from llmbook.files import write_whole
from llmbook.training.arguments import TrainingArguments

try:
    import fcntl
except ImportError:  # Windows: two runs in one folder are not noticed there
    fcntl = None

KEPT = 2  # checkpoints in a folder
FREE = ("save_steps", "eval_steps")  # settings that do not change what the weights become
FILES = ("model.safetensors", "optimizer.safetensors")


@dataclass
class History:
    """What a run recorded: one row per step, one per evaluation."""

    steps: list[dict[str, float]] = field(default_factory=list)  # step, loss, lr, grad_norm
    evaluations: list[dict[str, float]] = field(default_factory=list)  # step, loss

    def column(self, name: str) -> np.ndarray:
        """One column of ``steps``, e.g. ``history.column('loss')``. (steps,)"""
        return np.array([row[name] for row in self.steps])


class Run:
    """One run's checkpoints: what it is a run of, and where it keeps them."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        configuration: Mapping[str, Mapping[str, Any]],
        directory: str | Path | None,
    ) -> None:
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        self.configuration = json.loads(json.dumps(configuration))  # as it will be read again
        self.directory = None if directory is None else Path(directory)

    def start(self, resume: bool) -> History:
        """An empty history, or the one of the newest sound checkpoint, with weights and moments loaded."""
        if self.directory is None or not (found := _checkpoints(self.directory)):
            if resume:
                raise FileNotFoundError(f"checkpoint_dir holds no checkpoint to resume from: {self.directory}")
            return History()
        if not resume:
            raise FileExistsError(f"{found[0]} exists: pass resume=True to go on from it, or another checkpoint_dir")
        newest, state = _newest_sound(found)
        self._refuse_other(state["configuration"], newest)
        load_model(self.model, newest / "model.safetensors")
        _load_optimizer(self.optimizer, load_file(newest / "optimizer.safetensors"), state["groups"])
        self.scaler.load_state_dict(state["scaler"])
        return History(**state["history"])

    def save(self, history: History) -> None:
        """Write a checkpoint under a temporary name, flush it, rename it, then drop all but the last two."""
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        final = self.directory / _name(history)
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.directory))
        save_model(self.model, str(temporary / "model.safetensors"))
        tensors, groups = _optimizer_tensors(self.optimizer)
        save_file(tensors, temporary / "optimizer.safetensors")
        state = {
            "configuration": self.configuration,
            "groups": groups,
            "scaler": self.scaler.state_dict(),
            "history": dataclasses.asdict(history),
            "sha256": {name: _sha256(temporary / name) for name in FILES},
        }
        (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        if final.exists():  # a step that was saved before, or a damaged one that is made anew
            shutil.rmtree(final)
        os.rename(temporary, final)
        _flush(self.directory)
        for old in _checkpoints(self.directory)[KEPT:]:
            shutil.rmtree(old)

    def note(self, history: History) -> None:
        """Add what has been recorded since to the newest checkpoint, if it is of the same step."""
        newest = None if self.directory is None else latest_checkpoint(self.directory)
        if newest is None or newest.name != _name(history):
            return
        state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        state["history"] = dataclasses.asdict(history)
        write_whole(newest / "state.json", json.dumps(state))

    def advice(self) -> str:
        """How to go on after an interruption."""
        return "" if self.directory is None else f"; saved in {self.directory}, resume=True goes on from there"

    def _refuse_other(self, saved: Mapping[str, Mapping[str, Any]], newest: Path) -> None:
        differing = [
            f"{name}: {saved.get(part, {}).get(name)!r} there, {mine.get(name)!r} here"
            for part, mine in self.configuration.items()
            for name in {**saved.get(part, {}), **mine}
            if saved.get(part, {}).get(name) != mine.get(name)
        ]
        if differing:
            raise ValueError(f"{newest} is of another run ({'; '.join(differing)})")


def describe(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    args: TrainingArguments,
    get_batch: Callable[[int], Mapping[str, Tensor]],
    about: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """All that must be the same when a run is resumed, as JSON: settings, model, optimiser, data and ``about``."""
    settings = {k: v for k, v in dataclasses.asdict(args).items() if k not in FREE}
    steps = sorted({0, args.max_steps // 2, args.max_steps - 1})
    return {
        "arguments": settings,
        "model": _describe_model(model),
        "parameters": {name: list(p.shape) for name, p in model.named_parameters()},
        "optimizer": {"optimizer": type(optimizer).__name__},
        "data": {"batches": {str(step): _fingerprint(get_batch(step)) for step in steps}},
        "about": dict(about),
    }


def _describe_model(model: nn.Module) -> dict[str, Any]:
    """A model's configuration, where it has one; else its layers, as torch prints them."""
    config = getattr(model, "config", None)
    if dataclasses.is_dataclass(config):
        return dataclasses.asdict(config)
    if hasattr(config, "to_dict"):  # transformers
        return {k: v for k, v in config.to_dict().items() if k != "transformers_version"}
    return {"layers": str(model)}


def _fingerprint(batch: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, value in batch.items():
        digest.update(f"{name} {tuple(value.shape)} {value.dtype} ".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def held(directory: str | Path | None) -> Iterator[None]:
    """Hold a folder for this process, and clear what an earlier one left half written.

    Raises ``BlockingIOError`` that says who holds it, where another process does. The system itself lets go
    when a process ends, however it ends.
    """
    if directory is None or fcntl is None:
        yield
        return
    Path(directory).mkdir(parents=True, exist_ok=True)
    with open(Path(directory) / ".held-by", "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise BlockingIOError(f"checkpoint_dir {directory} is in use by {file.read() or 'another run'}") from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        for unfinished in Path(directory).glob(".writing-*"):
            shutil.rmtree(unfinished)
        yield


def latest_checkpoint(directory: str | Path) -> Path | None:
    """The newest checkpoint in a directory, or None."""
    return next(iter(_checkpoints(Path(directory))), None)


def _checkpoints(directory: Path) -> list[Path]:
    """All checkpoints in a directory, the newest first."""
    numbered = [p for p in directory.glob("step-*") if p.name.removeprefix("step-").isdigit()]
    return sorted(numbered, key=lambda p: int(p.name.removeprefix("step-")), reverse=True)


def _newest_sound(checkpoints: list[Path]) -> tuple[Path, dict[str, Any]]:
    """The first that can be read whole, and its state; a warning for each that cannot."""
    for checkpoint in checkpoints:
        try:
            return checkpoint, _read_state(checkpoint)
        except (OSError, ValueError) as error:
            warnings.warn(f"{checkpoint} is damaged and passed over: {error}", RuntimeWarning, stacklevel=4)
    raise ValueError(f"no checkpoint can be read in checkpoint_dir {checkpoints[0].parent}: all are damaged")


def _read_state(checkpoint: Path) -> dict[str, Any]:
    """``state.json``, once the other files are what it says; OSError or ValueError where they are not."""
    try:
        state = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"state.json is no JSON ({error})") from None
    for name in FILES:
        if _sha256(checkpoint / name) != state.get("sha256", {}).get(name):
            raise ValueError(f"{name} is not what was written")
    return state


def _name(history: History) -> str:
    return f"step-{len(history.steps):08d}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path) -> None:
    """Have a file or a folder on the disk, not only on its way there."""
    if path.is_dir() and os.name == "nt":  # Windows opens no folders
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The optimiser's moments as named tensors, and its groups' settings as JSON."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{name}": value.contiguous()
        for index, moments in state["state"].items()
        for name, value in moments.items()
        if isinstance(value, Tensor)
    }
    return tensors, state["param_groups"]


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[dict[str, Any]]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": groups})
