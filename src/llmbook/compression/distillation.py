"""A small model that learns from a large one: from its probabilities, its texts, its hidden states.

Soft targets (Hinton et al. 2015), sequence-level (Kim and Rush 2016), hidden states (Romero et al. 2015; Jiao et al.
2020), on-policy (Agarwal et al. 2024); and how alike two representations are (Kornblith et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmbook.compression.calibration import evaluating, hooked
from llmbook.decoding import generate
from llmbook.training import Batch, GetBatch, History, TrainingArguments, fit, padded_batches
from llmbook.transformer import GPT, IGNORE

KINDS = ("forward", "reverse", "jensen-shannon")

# ------------------------------------------------------------ losses


def divergence(student_logits: Tensor, teacher_logits: Tensor, kind: str = "forward") -> Tensor:
    """Nats between the two distributions at each position, (..., V) → (...).

    "forward" is KL(teacher ‖ student), which asks the student to cover all that the teacher may say; "reverse" is
    KL(student ‖ teacher), which asks it to say nothing that the teacher would not; "jensen-shannon" is half of each
    against the mean of both. Raises ValueError for another kind, and for shapes that differ.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"teacher_logits must have the student's shape {tuple(student_logits.shape)}, "
            f"got {tuple(teacher_logits.shape)}"
        )
    q, p = student_logits.log_softmax(-1), teacher_logits.log_softmax(-1)
    if kind == "forward":
        return _kl(p, q)
    if kind == "reverse":
        return _kl(q, p)
    if kind == "jensen-shannon":
        middle = torch.logaddexp(p, q) - np.log(2)
        return (_kl(p, middle) + _kl(q, middle)) / 2
    raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")


def _kl(p: Tensor, q: Tensor) -> Tensor:
    """Σ p (ln p − ln q) of log-probabilities; what has probability 0 counts nothing."""
    return torch.where(p.isneginf(), 0.0, p.exp() * (p - q)).sum(-1)


def distillation_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    *,
    kind: str = "forward",
    mask: Tensor | None = None,
) -> Tensor:
    """T² times the mean divergence of the two distributions softened by T (Hinton et al. 2015). ()

    Logits (..., V); ``mask`` (...) is True where a position counts. The factor keeps the gradient's size when T
    changes. Raises ValueError for a temperature that is not positive, shapes that differ, or a mask with nothing.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    each = divergence(student_logits / temperature, teacher_logits / temperature, kind)
    return temperature**2 * _mean(each, mask)


def hidden_loss(student_hidden: Tensor, teacher_hidden: Tensor, mask: Tensor | None = None) -> Tensor:
    """Squared distance of the states (..., C), as a share of the teacher's mean square: 1 for a student of zeros. ()

    Raises ValueError for shapes that differ: a student of another width needs a projection first.
    """
    if student_hidden.shape != teacher_hidden.shape:
        raise ValueError(
            f"student_hidden must have the teacher's shape {tuple(teacher_hidden.shape)}, "
            f"got {tuple(student_hidden.shape)}; project it first"
        )
    distance = (student_hidden - teacher_hidden).square().mean(-1)
    return _mean(distance, mask) / _mean(teacher_hidden.square().mean(-1), mask)


def _mean(each: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return each.mean()
    if mask.shape != each.shape or not mask.any():
        raise ValueError(f"mask must be {tuple(each.shape)} with a True in it, got {tuple(mask.shape)}")
    return each[mask].mean()


# ------------------------------------------------------------ hidden states


def run_with_states(model: GPT, input_ids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Logits (B, T, V), and the stream (B, T, C) behind the embedding and behind each block."""
    states: list[Tensor] = []

    def keep(_module: nn.Module, inputs: tuple[Tensor, ...], output: tuple[Tensor, object]) -> None:
        states.extend([inputs[0]] * (not states))
        states.append(output[0])

    with hooked([block.register_forward_hook(keep) for block in model.h]):
        logits = model(input_ids).logits
    return logits, states


class HiddenMatch(nn.Module):
    """Which states of a student shall be which of its teacher, through a learned matrix for each pair.

    ``pairs`` are (student's, teacher's) numbers: 0 is the embedding, i the state behind block i. Where the student is
    as wide as its teacher, the matrix starts as the identity.
    """

    def __init__(
        self, student: GPT, teacher: GPT, pairs: Sequence[tuple[int, int]], generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        deepest = len(student.h), len(teacher.h)
        if not pairs or not all(0 <= i <= deepest[0] and 0 <= j <= deepest[1] for i, j in pairs):
            raise ValueError(f"pairs must be of states 0..{deepest[0]} and 0..{deepest[1]}, got {list(pairs)}")
        self.pairs = [(int(i), int(j)) for i, j in pairs]
        narrow, wide = student.config.n_embd, teacher.config.n_embd
        self.projections = nn.ModuleList(nn.utils.skip_init(nn.Linear, narrow, wide, bias=False) for _ in pairs)
        for each in self.projections:
            if narrow == wide:
                nn.init.eye_(each.weight)
            else:
                nn.init.normal_(each.weight, 0.0, narrow**-0.5, generator=generator)

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor], mask: Tensor | None = None) -> Tensor:
        """Mean :func:`hidden_loss` over the pairs. ()"""
        losses = [
            hidden_loss(project(student[i]), teacher[j], mask)
            for (i, j), project in zip(self.pairs, self.projections, strict=True)
        ]
        return torch.stack(losses).mean()


# ------------------------------------------------------------ training


def distil(
    student: GPT,
    teacher: GPT,
    rows: Sequence[Sequence[int]] | GetBatch,
    args: TrainingArguments,
    *,
    temperature: float = 1.0,
    soft: float = 1.0,
    kind: str = "forward",
    match: HiddenMatch | None = None,
    match_weight: float = 1.0,
    callback: Callable[[int, nn.Module], None] | None = None,
) -> History:
    """Train ``student`` in place on its teacher's probabilities for the rows, each opened by its first token.

    The loss is ``soft`` · T² KL + (1 − ``soft``) · the rows' own cross-entropy, plus ``match_weight`` times what
    ``match`` says of hidden states. ``rows`` may be a function from a step to a batch, as in :func:`on_policy`. A
    batch that holds ``teacher_logits`` (B, T, V) is taken at its word, and the teacher is not asked. The teacher
    stays as it is. Raises ValueError for a share outside [0, 1] and for vocabularies that differ.
    """
    if not 0 <= soft <= 1:
        raise ValueError(f"soft must lie in [0, 1], got {soft}")
    if student.config.vocab_size != teacher.config.vocab_size:
        sizes = f"{student.config.vocab_size} and {teacher.config.vocab_size}"
        raise ValueError(f"student and teacher must share a vocabulary, got {sizes} tokens")
    teacher.eval()
    whole = nn.ModuleList([student] if match is None else [student, match])

    def loss(_model: nn.Module, batch: Batch) -> Tensor:
        ids, labels = batch["input_ids"], batch["labels"][:, 1:]
        logits, states = run_with_states(student, ids) if match is not None else (student(ids).logits, [])
        given, their_states = _ask(teacher, batch, match is not None)
        scored = labels != IGNORE  # (B, T − 1)
        total = logits.new_zeros(())
        if soft > 0:
            options = {"kind": kind, "mask": scored}
            total = soft * distillation_loss(logits[:, :-1], given[:, :-1], temperature, **options)
        if soft < 1:
            total = total + (1 - soft) * F.cross_entropy(logits[:, :-1][scored], labels[scored])
        if match is not None:
            total = total + match_weight * match(states, their_states, batch["labels"] != IGNORE)
        return total

    def after(step: int, _model: nn.Module) -> None:
        if callback is not None:
            callback(step, student)

    batches = rows if callable(rows) else padded_batches(rows, args)
    history = fit(whole, batches, args, loss_function=loss, callback=after, progress=False)
    student.eval()
    return history


@torch.no_grad()
def _ask(teacher: GPT, batch: Batch, states: bool) -> tuple[Tensor, list[Tensor]]:
    """The teacher's logits for a batch, and its states where they are wanted."""
    if states:
        return run_with_states(teacher, batch["input_ids"])
    if "teacher_logits" in batch:
        return batch["teacher_logits"], []
    return teacher(batch["input_ids"]).logits, []


class SoftTargets:
    """A teacher's logits for each text, asked once and remembered: what several students, or several epochs, share."""

    def __init__(self, teacher: GPT) -> None:
        self.teacher, self.known = teacher.eval(), {}

    @property
    def asked(self) -> int:
        """How many texts the teacher has read."""
        return len(self.known)

    def batches(self, rows: Sequence[Sequence[int]], args: TrainingArguments) -> GetBatch:
        """As :func:`llmbook.training.padded_batches`, and each batch holds ``teacher_logits`` (B, T, V)."""
        plain = padded_batches(rows, args)

        def get_batch(step: int) -> Batch:
            batch = plain(step)
            lengths = (batch["labels"] != IGNORE).sum(1).tolist()
            texts = [tuple(row[:n].tolist()) for row, n in zip(batch["input_ids"], lengths, strict=True)]
            if any(text not in self.known for text in texts):
                with torch.no_grad():
                    logits = self.teacher(batch["input_ids"]).logits
                self.known |= {text: row[: len(text)].clone() for text, row in zip(texts, logits, strict=True)}
            given = [self.known[text] for text in texts]
            return batch | {"teacher_logits": nn.utils.rnn.pad_sequence(given, batch_first=True)}

        return get_batch


@torch.no_grad()
def sample_rows(
    model: GPT, n: int, start: Sequence[int], end: int, longest: int, generator: torch.Generator,
    temperature: float = 1.0, batch_size: int = 256,
) -> list[np.ndarray]:  # fmt: skip
    """n texts drawn from the model, from ``start`` up to ``end`` or to ``longest`` tokens: a list of (T,) int64.

    A teacher's samples are the data of sequence-level distillation; a student's, those of on-policy distillation.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    rows: list[np.ndarray] = []
    ends = {"eos_token_id": end, "pad_token_id": end}
    with evaluating(model):
        while len(rows) < n:
            ids = torch.tensor([list(start)] * min(batch_size, n - len(rows)))
            room = longest - ids.shape[1]
            drawn = generate(model, ids, room, do_sample=True, temperature=temperature, generator=generator, **ends)
            rows += [_until(row, end) for row in drawn.numpy()]
    return rows


def _until(row: np.ndarray, end: int) -> np.ndarray:
    """A row up to and with its first ``end``."""
    found = np.flatnonzero(row == end)
    return row[: found[0] + 1] if len(found) else row


def on_policy(
    student: GPT,
    start: Sequence[int],
    end: int,
    args: TrainingArguments,
    generator: torch.Generator,
    refresh: int = 8,
) -> GetBatch:
    """Batches of what the student says itself: texts for the next ``refresh`` steps, drawn when they are needed.

    The teacher corrects what the student really does, where off-policy distillation corrects what it would do with
    the teacher's texts before it (Agarwal et al. 2024). No gradient flows through the drawing.
    """
    kept: dict[int, GetBatch] = {}

    def get_batch(step: int) -> Batch:
        if (number := step // refresh) not in kept:
            rows = sample_rows(student, refresh * args.batch_size, start, end, args.block_size, generator)
            kept.clear()
            kept[number] = padded_batches(rows, args)
        return kept[number](step % refresh)

    return get_batch


# ------------------------------------------------------------ likeness


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear centred kernel alignment of two representations of the same N inputs, (N, C) and (N, D): 0 to 1.

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features (Kornblith et al. 2019, eq. 3). It does not change when either is
    rotated or scaled. Raises ValueError for other shapes, and for a representation that never changes.
    """
    if x.dim() != 2 or y.dim() != 2 or len(x) != len(y) or len(x) < 2:
        raise ValueError(f"x and y must be (N, C) and (N, D) with N ≥ 2, got {tuple(x.shape)} and {tuple(y.shape)}")
    x, y = (each.double() - each.double().mean(0) for each in (x, y))
    norms = (x.T @ x).norm() * (y.T @ y).norm()
    if not norms > 0:
        raise ValueError("x and y must change from input to input, got one that doesn't")
    return float((y.T @ x).square().sum() / norms)
