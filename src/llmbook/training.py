"""The training loop: batches, schedules, accumulation, mixed precision, exact resume, several processes.

Everything random is a function of ``(seed, step)``: which examples step 1,234 sees and what its dropout
drops. So a run needs no hidden state beside the weights and the optimiser's moments, and one that was
killed and resumed ends in the same bits as one that was not.

From the shell: ``python -m llmbook.training --help``; on several processes under ``torchrun``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import math
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm.auto import tqdm

from llmbook import corpora
from llmbook.products import FastLinear
from llmbook.tokenization import Vocabulary
from llmbook.toyworld import ToyWorld
from llmbook.transformer import GPT, IGNORE, GPTConfig

SCHEDULES = ("constant", "linear", "step", "cosine", "wsd")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Batch = Mapping[str, Tensor]
GetBatch = Callable[[int], Batch]


@dataclass(frozen=True)
class TrainingArguments:
    """How to train; the names are those of ``transformers.TrainingArguments`` where it has them."""

    max_steps: int = 1000
    batch_size: int = 16  # sequences in one step, over all processes and micro-batches
    block_size: int = 128  # tokens in a sequence
    learning_rate: float = 1e-3  # the peak
    lr_scheduler_type: str = "cosine"
    warmup_steps: int = 0
    min_lr_ratio: float = 0.1  # where linear, cosine and wsd end, as a share of the peak
    decay_fraction: float = 0.2  # wsd: the share of steps spent decaying; step: the length of a stair
    weight_decay: float = 0.1
    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    max_grad_norm: float = 1.0  # 0 switches clipping off
    gradient_accumulation_steps: int = 1
    precision: str = "float32"
    save_steps: int = 0  # 0 saves only at the end and on an interruption
    eval_steps: int = 0  # 0 evaluates only at the end
    seed: int = 0

    def __post_init__(self) -> None:
        positive = ("max_steps", "batch_size", "block_size", "learning_rate", "gradient_accumulation_steps")
        for name in positive:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "save_steps", "eval_steps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        for name in ("min_lr_ratio", "decay_fraction"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.lr_scheduler_type not in SCHEDULES:
            raise ValueError(f"lr_scheduler_type must be one of {SCHEDULES}, got {self.lr_scheduler_type!r}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {tuple(PRECISIONS)}, got {self.precision!r}")


def learning_rate(step: int, args: TrainingArguments) -> float:
    """The learning rate of a step (counted from 0): a linear warm-up, then the schedule.

    ``step`` halves the rate after every ``decay_fraction`` of the run; ``wsd`` (warm-up, stable, decay:
    Hu et al. 2024) holds the peak and falls linearly over the last ``decay_fraction``.
    """
    if step < args.warmup_steps:
        return args.learning_rate * (step + 1) / args.warmup_steps
    done = (step - args.warmup_steps) / max(1, args.max_steps - args.warmup_steps)  # 0 to 1
    low, kind = args.min_lr_ratio, args.lr_scheduler_type
    if kind == "linear":
        scale = 1 - (1 - low) * done
    elif kind == "cosine":
        scale = low + (1 - low) * 0.5 * (1 + math.cos(math.pi * done))
    elif kind == "step":
        scale = 0.5 ** math.floor(done / args.decay_fraction + 1e-9) if args.decay_fraction else 1.0
    elif kind == "wsd":
        into_decay = max(0.0, done - (1 - args.decay_fraction))
        scale = 1 - (1 - low) * into_decay / args.decay_fraction if args.decay_fraction else 1.0
    else:
        scale = 1.0
    return args.learning_rate * scale


def pack(documents: Sequence[Sequence[int]], eos: int) -> Tensor:
    """Documents end to end in one row of ids, each closed by ``eos``: no padding, nothing dropped. (N,)"""
    if not documents:
        raise ValueError("documents must not be empty")
    parts = [np.append(np.asarray(document, dtype=np.int64), eos) for document in documents]
    return torch.from_numpy(np.concatenate(parts))


def packed_batches(tokens: Tensor, args: TrainingArguments) -> GetBatch:
    """Batches of ``block_size`` consecutive tokens, every block once per epoch, in an order from the seed.

    ``tokens`` is (N,) int64. Block borders shift from epoch to epoch, so that no token is always a first
    one. The batch of a step depends on nothing but the seed and the step.
    """
    if tokens.ndim != 1 or tokens.dtype != torch.int64:
        raise ValueError(f"tokens must be (N,) int64, got {tuple(tokens.shape)} {tokens.dtype}")
    size = args.block_size
    blocks = (len(tokens) - 1) // size  # less than a block is left for the shift
    if blocks < 1:
        raise ValueError(f"tokens must hold more than one block of {size}, got {len(tokens)}")

    def get_batch(step: int) -> Batch:
        numbers = range(step * args.batch_size, (step + 1) * args.batch_size)
        starts = [_block_start(n, blocks, size, len(tokens), args.seed) for n in numbers]
        input_ids = torch.stack([tokens[s : s + size] for s in starts])  # (B, T)
        return {"input_ids": input_ids, "labels": input_ids}

    return get_batch


def _block_start(number: int, blocks: int, size: int, total: int, seed: int) -> int:
    """Where the ``number``-th block of the whole run begins: epoch ``number // blocks``, shuffled."""
    epoch, place = divmod(number, blocks)
    order, shift = _epoch_order(epoch, blocks, total - blocks * size, seed)
    return shift + size * int(order[place])


_orders: dict[tuple[int, int, int, int], tuple[np.ndarray, int]] = {}


def _epoch_order(epoch: int, blocks: int, slack: int, seed: int) -> tuple[np.ndarray, int]:
    """The permutation and the shift of an epoch; the last few are kept, since every step asks."""
    key = (epoch, blocks, slack, seed)
    if key not in _orders:
        if len(_orders) >= 4:
            _orders.clear()
        rng = np.random.default_rng([seed, epoch])
        _orders[key] = rng.permutation(blocks), int(rng.integers(slack + 1))
    return _orders[key]


POOL = 32  # padded_batches sorts this many batches by length at a time


def padded_batches(rows: Sequence[Sequence[int]], args: TrainingArguments) -> GetBatch:
    """Batches of whole documents, one in a row, padded on the right to the batch's longest.

    Where a document must be read from its beginning (`pack` cuts it anywhere), and is short. Every row comes
    once per epoch, but for the fewer than ``batch_size`` last ones of its shuffled order. Rows of like length
    go together, so that little is padding; which ones, and when, follows from the seed. Padding has id 0, the
    label −100, and stands behind all that a causal model sees. The batch of a step depends on nothing but the
    seed and the step. Raises ``ValueError`` for too few rows, and for one longer than ``args.block_size``.
    """
    lengths = np.array([len(row) for row in rows])
    if len(rows) < args.batch_size:
        raise ValueError(f"rows must hold at least one batch of {args.batch_size}, got {len(rows)}")
    if not 2 <= lengths.min() <= lengths.max() <= args.block_size:
        raise ValueError(
            f"rows must have 2 to block_size = {args.block_size} tokens, got {lengths.min()} to {lengths.max()}"
        )
    batches = len(rows) // args.batch_size
    tensors = [torch.as_tensor(row, dtype=torch.int64) for row in rows]

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return _order_by_length(lengths, args.batch_size, np.random.default_rng([args.seed, epoch]))

    def get_batch(step: int) -> Batch:
        epoch, place = divmod(step, batches)
        chosen = [tensors[i] for i in order(epoch)[place]]
        labels = nn.utils.rnn.pad_sequence(chosen, batch_first=True, padding_value=IGNORE)  # (B, T)
        return {"input_ids": labels.clamp(min=0), "labels": labels}

    return get_batch


def _order_by_length(lengths: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """One epoch: shuffle, sort within each pool, cut into batches, shuffle these. (batches, batch_size)"""
    shuffled = rng.permutation(len(lengths))[: len(lengths) // batch_size * batch_size]
    pools = (shuffled[i : i + POOL * batch_size] for i in range(0, len(shuffled), POOL * batch_size))
    by_length = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    return rng.permutation(np.concatenate(by_length).reshape(-1, batch_size))


@dataclass
class History:
    """What a run recorded: one row per step, one per evaluation."""

    steps: list[dict[str, float]] = field(default_factory=list)  # step, loss, lr, grad_norm
    evaluations: list[dict[str, float]] = field(default_factory=list)  # step, loss

    def column(self, name: str) -> np.ndarray:
        """One column of ``steps``, e.g. ``history.column('loss')``. (steps,)"""
        return np.array([row[name] for row in self.steps])


class NonFiniteLoss(FloatingPointError):
    """The loss became NaN or infinite; the message names the step and the batch."""


def configure_optimizer(model: nn.Module, args: TrainingArguments) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves biases, gains and other vectors alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    betas = (args.adam_beta1, args.adam_beta2)
    return torch.optim.AdamW(groups, lr=args.learning_rate, betas=betas, fused=True)


def model_loss(model: nn.Module, batch: Batch) -> Tensor:
    """The loss that the model itself computes, as in transformers. ()"""
    return model(**batch).loss


def fit(
    model: nn.Module,
    get_batch: GetBatch,
    args: TrainingArguments,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    loss_function: Callable[[nn.Module, Batch], Tensor] = model_loss,
    evaluate: Callable[[nn.Module], float] | None = None,
    callback: Callable[[int, nn.Module], None] | None = None,
    checkpoint_dir: str | Path | None = None,
    resume: bool = False,
    progress: bool | None = None,
) -> History:
    """Train ``model`` in place for ``args.max_steps`` and return what was recorded.

    ``get_batch(step)`` gives the whole step's batch, (B, T) tensors by keyword; under ``torchrun`` each
    process takes its rows. ``evaluate(model)`` returns a loss in nats. ``progress`` None shows a bar
    only in a terminal or in JupyterLab. Ctrl-C finishes the step, saves, and raises ``KeyboardInterrupt``. Raises
    :class:`NonFiniteLoss`, ``ValueError`` for a checkpoint of another configuration, and
    ``FileExistsError`` for one that would be overwritten.
    """
    optimizer = optimizer or configure_optimizer(model, args)
    rank, world = _ranks()
    device = next(model.parameters()).device
    scaler = torch.amp.GradScaler(device.type, enabled=args.precision == "float16")
    run = _Run(model, optimizer, scaler, args, checkpoint_dir)
    history = run.start(resume)
    trained = DistributedDataParallel(model) if world > 1 else model
    steps = range(len(history.steps), args.max_steps)
    bar = _progress_bar(steps, progress if rank == 0 else False)
    with _interrupts() as interrupted, torch.random.fork_rng(devices=_cuda_devices(device)):
        for step in bar:
            started = time.perf_counter()
            torch.manual_seed(_step_seed(args.seed, step, rank))  # dropout, too, is a function of the step
            batch = get_batch(step)
            row = _train_step(trained, optimizer, scaler, batch, step, args, loss_function, device)
            history.steps.append(row)
            tokens = next(iter(batch.values())).numel()
            bar.set_postfix(loss=f"{row['loss']:.3f}", tokens_per_s=f"{tokens / (time.perf_counter() - started):,.0f}")
            last = step + 1 == args.max_steps
            if evaluate is not None and (last or _due(step, args.eval_steps)):
                history.evaluations.append({"step": step + 1, "loss": _evaluated(evaluate, model)})
            if callback is not None:
                callback(step, model)
            stop = _sum_over_processes(float(bool(interrupted)), device) > 0  # all processes or none
            if rank == 0 and (last or stop or _due(step, args.save_steps)):
                run.save(history)
            if stop:
                raise KeyboardInterrupt(f"stopped after step {step + 1}{run.advice()}")
    return history


def _train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    step: int,
    args: TrainingArguments,
    loss_function: Callable[[nn.Module, Batch], Tensor],
    device: torch.device,
) -> dict[str, float]:
    """One update: forward and backward over the micro-batches, clip, step. Returns the row for the history."""
    model.train()
    rate = learning_rate(step, args)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.zero_grad(set_to_none=True)
    loss = _backward(model, scaler, batch, step, args, loss_function, device)
    scaler.unscale_(optimizer)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    limit = args.max_grad_norm or math.inf
    norm = float(nn.utils.clip_grad_norm_(parameters, limit))
    scaler.step(optimizer)
    scaler.update()
    return {"step": step, "loss": loss, "lr": rate, "grad_norm": norm}


def _backward(
    model: nn.Module,
    scaler: torch.amp.GradScaler,
    batch: Batch,
    step: int,
    args: TrainingArguments,
    loss_function: Callable[[nn.Module, Batch], Tensor],
    device: torch.device,
) -> float:
    """Accumulate the gradient of the step's mean loss per predicted token; return that loss."""
    rank, world = _ranks()
    parts = args.gradient_accumulation_steps * world
    micro_batches = [{k: v.chunk(parts)[i] for k, v in batch.items()} for i in range(parts)]
    mine = micro_batches[rank::world]
    total = sum(_targets(m) for m in micro_batches)
    loss_sum = 0.0
    for i, micro in enumerate(mine):
        micro = {k: v.to(device, non_blocking=True) for k, v in micro.items()}
        # Processes exchange gradients once a step, with the last micro-batch.
        quiet = model.no_sync() if world > 1 and i + 1 < len(mine) else contextlib.nullcontext()
        with quiet:
            with _autocast(device, args.precision):
                loss = loss_function(model, micro) * (_targets(micro) / total)
            if not math.isfinite(value := float(loss.detach())):
                raise NonFiniteLoss(f"the loss is {value} at step {step}, {_name_batch(micro, rank, i)}")
            scaler.scale(loss * world).backward()  # DDP divides the sum of gradients by world
        loss_sum += value
    return _sum_over_processes(loss_sum, device)


def _targets(batch: Batch) -> int:
    """How many tokens a batch asks the model to predict: micro-batches count by it, not alike."""
    labels = batch.get("labels")
    if labels is None:
        return len(next(iter(batch.values())))
    return int((labels[:, 1:] != -100).sum()) if labels.ndim == 2 else labels.numel()


def _name_batch(batch: Batch, rank: int, micro: int) -> str:
    name, first = next(iter(batch.items()))
    return f"micro-batch {micro} of process {rank}, whose {name} begin {first.flatten()[:8].tolist()}"


def _autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    if precision == "float32":
        return FastLinear()  # the same numbers, sooner
    return torch.autocast(device.type, dtype=PRECISIONS[precision])


def _evaluated(evaluate: Callable[[nn.Module], float], model: nn.Module) -> float:
    model.eval()
    with torch.no_grad():
        return float(evaluate(model))


def _due(step: int, every: int) -> bool:
    return every > 0 and (step + 1) % every == 0


def _step_seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint32)[0])


def _cuda_devices(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _ranks() -> tuple[int, int]:
    """This process's number and how many there are (0, 1 without torchrun)."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def _sum_over_processes(value: float, device: torch.device) -> float:
    if _ranks()[1] == 1:
        return value
    total = torch.tensor(value, device=device, dtype=torch.float64)
    torch.distributed.all_reduce(total)
    return float(total)


def shows_progress(asked: bool | None = None) -> bool:
    """Whether to show a bar: as asked for, else in a terminal and in JupyterLab, where somebody watches."""
    watched = sys.stderr.isatty() or "JPY_SESSION_NAME" in os.environ  # Jupyter's servers set it, papermill not
    return watched if asked is None else asked


def _progress_bar(steps: range, progress: bool | None) -> tqdm:
    """A bar with loss, tokens per second and the time left."""
    disable = not shows_progress(progress)
    return tqdm(steps, disable=disable, unit="step", initial=steps.start, total=steps.stop, dynamic_ncols=True)


class _Flag(list[int]):
    """True once a signal has been noted."""


@contextlib.contextmanager
def _interrupts() -> Iterator[_Flag]:
    """Note the first Ctrl-C, so that the step ends whole; a second one is raised at once."""
    flag = _Flag()
    try:
        previous = signal.getsignal(signal.SIGINT)

        def note(number: int, frame: Any) -> None:
            signal.signal(signal.SIGINT, previous)
            flag.append(number)

        signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: signals are not ours to handle
        yield flag
        return
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, previous)


class _Run:
    """Where a run keeps its checkpoints: ``step-00001000/`` with weights, moments and a JSON state."""

    # These do not change what the weights become.
    FREE = ("save_steps", "eval_steps")

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scaler: torch.amp.GradScaler,
        args: TrainingArguments,
        directory: str | Path | None,
    ) -> None:
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        self.directory = None if directory is None else Path(directory)
        settings = {k: v for k, v in dataclasses.asdict(args).items() if k not in self.FREE}
        shapes = {name: list(p.shape) for name, p in model.named_parameters()}
        self.configuration = {
            "arguments": settings,
            "optimizer": type(optimizer).__name__,
            "parameters": shapes,
        }

    def start(self, resume: bool) -> History:
        """An empty history, or the one of the newest checkpoint, with weights and moments loaded."""
        newest = None if self.directory is None else latest_checkpoint(self.directory)
        if newest is None:
            if resume:
                raise FileNotFoundError(f"checkpoint_dir holds no checkpoint to resume from: {self.directory}")
            return History()
        if not resume:
            raise FileExistsError(f"{newest} exists: pass resume=True to go on from it, or another checkpoint_dir")
        state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
        self._refuse_other(state["configuration"], newest)
        load_model(self.model, newest / "model.safetensors")
        _load_optimizer(self.optimizer, load_file(newest / "optimizer.safetensors"), state["groups"])
        self.scaler.load_state_dict(state["scaler"])
        return History(**state["history"])

    def save(self, history: History) -> None:
        """Write a checkpoint under a temporary name, rename it, then drop the older ones."""
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        final = self.directory / f"step-{len(history.steps):08d}"
        temporary = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.directory))
        save_model(self.model, str(temporary / "model.safetensors"))
        tensors, groups = _optimizer_tensors(self.optimizer)
        save_file(tensors, temporary / "optimizer.safetensors")
        state = {
            "configuration": self.configuration,
            "groups": groups,
            "scaler": self.scaler.state_dict(),
            "history": dataclasses.asdict(history),
        }
        (temporary / "state.json").write_text(json.dumps(state), encoding="utf-8")
        if final.exists():  # the last step of a run that had already been saved
            shutil.rmtree(final)
        os.rename(temporary, final)
        for old in self.directory.glob("step-*"):
            if old != final:
                shutil.rmtree(old)

    def advice(self) -> str:
        return "" if self.directory is None else f"; saved in {self.directory}, resume=True goes on from there"

    def _refuse_other(self, saved: dict[str, Any], newest: Path) -> None:
        differing = [
            f"{name}: {saved[part].get(name)!r} there, {mine!r} here"
            for part in ("arguments", "parameters")
            for name, mine in {**dict.fromkeys(saved[part]), **self.configuration[part]}.items()
            if saved[part].get(name) != mine
        ]
        if saved["optimizer"] != self.configuration["optimizer"]:
            differing.append(f"optimizer: {saved['optimizer']} there, {self.configuration['optimizer']} here")
        if differing:
            raise ValueError(f"{newest} is of another configuration ({'; '.join(differing)})")


def latest_checkpoint(directory: str | Path) -> Path | None:
    """The newest complete checkpoint in a directory, or None."""
    return max(Path(directory).glob("step-*"), default=None)


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


# ------------------------------------------------------------------------------------------------ the shell


def load_corpus(name: str, stories: int, seed: int) -> tuple[Vocabulary, Tensor, Tensor]:
    """A vocabulary and packed ids (N,) for training and validation: ``toyworld``, ``wikipedia``, or a text file.

    ToyWorld and Wikipedia are read word by word, a UTF-8 file character by character; its last tenth is
    for validation.
    """
    if name == "toyworld":
        told = [story.words for story in ToyWorld().stories(stories, seed)]
        train, valid = told[: len(told) * 9 // 10], told[len(told) * 9 // 10 :]
    elif name == "wikipedia":
        train, valid, _ = ([d.tokens for d in part] for part in corpora.split(corpora.wikipedia(), seed=seed))
    else:
        text = Path(name).read_text(encoding="utf-8")
        train, valid = [list(text[: len(text) * 9 // 10])], [list(text[len(text) * 9 // 10 :])]
    words = (token for document in train for token in document)
    vocabulary = Vocabulary(words, min_count=1 if name != "wikipedia" else 3, specials=("<eos>", "<unk>"))
    packed = [pack([vocabulary.encode(d) for d in part], vocabulary.token_to_id("<eos>")) for part in (train, valid)]
    return vocabulary, packed[0], packed[1]


@torch.no_grad()
def evaluate_loss(model: nn.Module, tokens: Tensor, block_size: int, batch_size: int = 32) -> float:
    """Mean loss in nats per predicted token over all whole blocks of ``tokens`` (N,)."""
    count = len(tokens) // block_size
    if count < 1:
        raise ValueError(f"tokens must hold at least one block of {block_size}, got {len(tokens)}")
    device = next(model.parameters()).device
    rows = tokens[: count * block_size].view(count, block_size).split(batch_size)
    losses = [(float(model_loss(model, {"input_ids": r.to(device), "labels": r.to(device)})), len(r)) for r in rows]
    return sum(loss * n for loss, n in losses) / count


@torch.no_grad()
def row_logprobs(model: nn.Module, rows: Sequence[Sequence[int]], batch_size: int = 64) -> np.ndarray:
    """What a causal model thought of each token of each row but the first: ln q(token | those before it), (N,).

    Puts the model into evaluation mode. With `<bos>` in front of each story, the result stands beside the
    stories' own ``logprobs``, token for token, for :func:`llmbook.evaluation.paired_excess`.
    """
    if not rows or min(map(len, rows)) < 2:
        raise ValueError("rows must hold at least one row, each of at least 2 tokens")
    model.eval()
    device, order = next(model.parameters()).device, sorted(range(len(rows)), key=lambda i: len(rows[i]))
    found: list[np.ndarray] = [np.empty(0)] * len(rows)
    for some in (order[i : i + batch_size] for i in range(0, len(rows), batch_size)):
        tensors = [torch.as_tensor(rows[i], dtype=torch.int64) for i in some]
        ids = nn.utils.rnn.pad_sequence(tensors, batch_first=True).to(device)  # (B, T)
        logits = model(ids).logits[:, :-1].transpose(1, 2)  # (B, V, T − 1)
        losses = nn.functional.cross_entropy(logits, ids[:, 1:], reduction="none").double().cpu()  # (B, T − 1)
        for i, row in zip(some, losses, strict=True):
            found[i] = -row[: len(rows[i]) - 1].numpy()
    return np.concatenate(found)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llmbook.training",
        description="Train the book's GPT. On several processes: torchrun --nproc-per-node 2 -m llmbook.training …",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--corpus", default="toyworld", help="toyworld, wikipedia, or a UTF-8 text file")
    parser.add_argument("--stories", type=int, default=10_000, help="how many ToyWorld stories to draw")
    parser.add_argument("--output", required=True, help="folder for checkpoints, the model and its history")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the output folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or mps")
    for name, default in {"n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help="the model's")
    for setting in dataclasses.fields(TrainingArguments):
        flag = f"--{setting.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(setting.default), default=setting.default, help="see TrainingArguments")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train from the shell; the folder named by ``--output`` then holds what ``GPT.from_pretrained`` reads."""
    options = _parser().parse_args(argv)
    args = TrainingArguments(**{f.name: getattr(options, f.name) for f in dataclasses.fields(TrainingArguments)})
    with _process_group(options.device) as device:
        vocabulary, train, valid = load_corpus(options.corpus, options.stories, args.seed)
        shape = {name: getattr(options, name) for name in ("n_layer", "n_head", "n_embd")}
        drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), options.dropout)
        config = GPTConfig(vocab_size=len(vocabulary), n_positions=args.block_size, **shape, **drop)
        model = GPT(config, generator=torch.Generator().manual_seed(args.seed)).to(device)
        history = fit(
            model,
            packed_batches(train, args),
            args,
            evaluate=lambda m: evaluate_loss(m, valid, args.block_size),
            checkpoint_dir=Path(options.output) / "checkpoints",
            resume=options.resume,
        )
        if _ranks()[0] == 0:
            model.save_pretrained(options.output)
            vocabulary.save(Path(options.output) / "vocabulary.json")
            print(json.dumps({"steps": len(history.steps), "validation_loss": history.evaluations[-1]["loss"]}))


@contextlib.contextmanager
def _process_group(device: str) -> Iterator[torch.device]:
    """Join the processes that torchrun started, if it did; each CUDA process gets a card of its own."""
    if "LOCAL_RANK" not in os.environ:
        yield torch.device(device)
        return
    torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield torch.device(device, int(os.environ["LOCAL_RANK"])) if device == "cuda" else torch.device(device)
    finally:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt as stopped:
        sys.exit(f"{stopped}")
