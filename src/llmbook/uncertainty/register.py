"""A register of homes: facts that follow from nothing else, some told often, some once, some never.

The *arbitrary facts* of Kalai et al. (2025). Who is asked about follows a law like Zipf's; where somebody
lives is drawn once, evenly, and no other fact gives it away. So what a reader of N sentences can know is known: the
people who occurred. For the others nobody can do better than guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from llmbook.training import TrainingArguments, fit
from llmbook.training.batches import Batch
from llmbook.transformer import GPT, IGNORE, GPTConfig

PLACES = (
    "Arden", "Brill", "Corby", "Deal", "Epsom", "Frome", "Goole", "Hythe", "Ilkley", "Jarrow", "Kendal", "Leek",
    "Malvern", "Nantwich", "Otley", "Penrith", "Redcar", "Selby", "Thirsk", "Usk", "Ventnor", "Whitby", "Yarm", "Zeal",
)  # fmt: skip
FORMS = ("{}", "in {}", "it was {}", "at home in {}", "a house in {}")
ASKED = ("place", "tell")  # a terse question, answered by the place alone, and one answered in any of FORMS
BOS, EOS = "<bos>", "<eos>"
LENGTH = 8  # tokens of the longest row


class Register:
    """``people`` and their homes; person i is asked about with a chance like (i + 10)^−exponent.

    The share ``split`` of the people has two homes, and a text names either, as often as the other. The share
    ``rumoured`` is told of wrongly, and always in the same way: a text that errs. ``true`` and ``told``
    (people, places) hold the chance of each place, as it is and as texts have it.
    """

    def __init__(
        self, people: int = 400, exponent: float = 1.0, split: float = 0.0, rumoured: float = 0.0, seed: int = 0
    ) -> None:
        if people < 2 or exponent < 0 or split < 0 or rumoured < 0 or split + rumoured > 1:
            raise ValueError(
                "people must be at least 2, exponent, split and rumoured not negative, and the last two at most 1 "
                f"together, got {people}, {exponent}, {split} and {rumoured}"
            )
        rng = np.random.default_rng([seed, 22])
        weights = (np.arange(people) + 10.0) ** -exponent
        self.people, self.chance = people, weights / weights.sum()  # (people,)
        first = rng.integers(len(PLACES), size=people)
        other = (first + rng.integers(1, len(PLACES), size=people)) % len(PLACES)
        luck = rng.random(people)
        self.split, self.rumour = luck < split, luck >= 1 - rumoured  # (people,) each
        one = np.eye(len(PLACES))
        both = (one[first] + one[other]) / 2
        self.true = np.where(self.split[:, None], both, one[first])  # (people, 24)
        self.told = np.where(self.rumour[:, None], one[other], self.true)
        said = sorted({word for form in FORMS for word in form.format("").split()})
        self.vocabulary = [BOS, EOS, *ASKED, *said, *PLACES, *(f"person{i}" for i in range(people))]
        self.token_to_id = {token: i for i, token in enumerate(self.vocabulary)}

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """n people, (n,), each with their chance."""
        return rng.choice(self.people, size=n, p=self.chance)

    def question(self, person: int, asked: str) -> list[int]:
        """Ids of ``<bos> asked person``."""
        return [self.token_to_id[token] for token in (BOS, asked, f"person{person}")]

    def rows(self, people: Sequence[int], rng: np.random.Generator) -> list[list[int]]:
        """A sentence about each person as ids: a question of either kind with an answer as the text tells it."""
        rows = []
        for person in people:
            asked = ASKED[rng.integers(2)]
            form = FORMS[rng.integers(len(FORMS))] if asked == "tell" else "{}"
            place = PLACES[rng.choice(len(PLACES), p=self.told[person])]
            answer = form.format(place).split()
            rows.append([*self.question(person, asked), *(self.token_to_id[t] for t in (*answer, EOS))])
        return rows

    def meaning(self, ids: Sequence[int]) -> int:
        """The place that an answer names, −1 where it names none or several."""
        named = {PLACES.index(word) for i in ids if (word := self.vocabulary[i]) in PLACES}
        return named.pop() if len(named) == 1 else -1

    def text(self, ids: Sequence[int]) -> str:
        return " ".join(self.vocabulary[i] for i in ids)


# ------------------------------------------------------------ what can be known


def singleton_rate(people: ArrayLike) -> float:
    """The share of N rows whose person occurs in no other row.

    Good (1953) and Turing: its expectation is near that of the chance that the next person is a new one.
    """
    ids = np.asarray(people)
    if ids.ndim != 1 or not ids.size:
        raise ValueError(f"people must be a non-empty (N,) array, got shape {ids.shape}")
    return float(np.mean(np.unique(ids, return_counts=True)[1] == 1) * np.unique(ids).size / ids.size)


def missing_mass(register: Register, people: ArrayLike) -> float:
    """The chance that the next person is none of these."""
    return float(register.chance[np.setdiff1d(np.arange(register.people), people)].sum())


def kalai_bound(rate: float, answers: int, n: int, calibration: float = 0.0) -> float:
    """What a model's errors are at least, with 99 % probability: theorem on arbitrary facts of Kalai et al. (2025).

    rate − 2 / answers − (35 + 6 ln n) / √n − calibration, with the singleton rate of n rows, so many wrong answers
    to each question, and a measure of miscalibration. Negative, and so empty, where n is small.
    """
    if n < 1 or answers < 1:
        raise ValueError(f"n and answers must be at least 1, got {n} and {answers}")
    return rate - 2 / answers - (35 + 6 * math.log(n)) / math.sqrt(n) - calibration


# ------------------------------------------------------------ a reader


def train_reader(
    register: Register,
    rows: Sequence[Sequence[int]],
    *,
    max_steps: int = 110,
    batch_size: int = 128,
    dropout: float = 0.0,
    seed: int = 0,
) -> GPT:
    """A GPT of one block that has read these rows over and over; only the answers are scored."""
    config = GPTConfig(
        len(register.vocabulary), n_positions=16, n_embd=64, n_layer=1, n_head=4, positions="rotary",
        initializer_range=0.07, resid_pdrop=dropout, embd_pdrop=dropout,
    )  # fmt: skip
    args = TrainingArguments(
        max_steps=max_steps, batch_size=batch_size, block_size=LENGTH, learning_rate=8e-3, warmup_steps=10,
        min_lr_ratio=0.0, adam_beta2=0.98, weight_decay=0.01, seed=seed,
    )  # fmt: skip
    model = GPT(config, generator=torch.Generator().manual_seed(seed))
    fit(model, _batches(rows, args), args, progress=False)
    return model.eval()


def _batches(rows: Sequence[Sequence[int]], args: TrainingArguments) -> Callable[[int], Batch]:
    """Rows padded to one length, drawn anew at each step; the question (its first three tokens) is not scored."""
    ids = torch.zeros(len(rows), LENGTH, dtype=torch.long)
    labels = torch.full_like(ids, IGNORE)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.as_tensor(row)
        labels[i, 3 : len(row)] = torch.as_tensor(row[3:])

    def get_batch(step: int) -> Batch:
        rng = np.random.default_rng([args.seed, step])
        chosen = torch.as_tensor(rng.integers(len(rows), size=args.batch_size))
        return {"input_ids": ids[chosen], "labels": labels[chosen]}

    return get_batch


@torch.inference_mode()
def place_probs(model: GPT, register: Register, people: ArrayLike) -> NDArray[np.float64]:
    """The model's distribution over places (n, 24) for terse questions: what is left on other tokens is divided out."""
    prompts = torch.tensor([register.question(person, "place") for person in np.asarray(people)])
    logits = model(prompts, logits_to_keep=1).logits[:, -1]
    first = register.token_to_id[PLACES[0]]
    return logits[:, first : first + len(PLACES)].double().softmax(-1).numpy()
