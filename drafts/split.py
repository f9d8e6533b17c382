s=open('src/llmbook/applications/dialogue.py').read()
a,b=s.split("# ------------------------------------------------------------ dialogues as tokens\n")
a=a.replace('''"""A shop in ToyWorld: customers with goals, a clerk who tracks them and calls tools, and the text they make.

A customer (the user simulator) wants a number of things of some colour brought to a place on a day, tells it in
pieces, changes their mind, refers to earlier purchases and asks what no shop can answer. The clerk's turn is text,
as in SimpleTOD (Hosseini-Asl et al., 2020): the state, an act, calls of tools with their results, and words. Every
label is exact, since the customer knows at each turn what they have said.
"""''','''"""A shop in ToyWorld: customers with goals, a clerk who follows rules, and tools for the clerk to call.

A customer (the user simulator) wants a number of things of some colour brought to a place on a day, tells it in
pieces, changes their mind, refers to earlier purchases and asks what no shop can answer. Every label is exact, since
the customer knows at each turn what they have said. ``llmbook.applications.dialogue`` makes text of it for a model.
"""''')
a=a.replace('''from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from llmbook.decoding import Reader
from llmbook.decoding.processors import ends
from llmbook.toyworld import words
from llmbook.transformer import GPT

NONE = "-"  # a slot that has no value yet
SYSTEM, USER, CLERK, END = "<system>", "<user>", "<clerk>", "<end>"
STATE, ACT, TOOL, RESULT, BACK, SAY = "<state>", "<act>", "<tool>", "<result>", "<back>", "<say>"
MARKERS = ("<pad>", SYSTEM, USER, CLERK, END, STATE, ACT, TOOL, RESULT, BACK, SAY)
''','''from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from llmbook.toyworld import words

''')
a=a.replace('"make it {v} and not {old}", "sorry , not {old} , {v}", "it should be {v} and not {old}"','"make it {v} and not {old}", "sorry , not {old} , {v}", "i want {v} please , not {old}"')
a=a.replace('please send {number} songs .','please send a song .')
a=a.replace('''        if slot == "number" and self._chance(0.5):
            value, text = DIGITS[DIGITS.index(old) + 1] if old != "nine" else old, "one more please"
''','''        if slot == "number" and old != "nine" and self._chance(0.5):
            value, text = DIGITS[DIGITS.index(old) + 1], "one more please"
''')
a=a.replace('''    ``unseen`` uses wordings that no training dialogue has. ``reliable`` customers make no asides, change nothing and
    ask nothing outside: the easy half of the truth. Attributes: ``goal``, ``told`` (the true state), ``notes``.
''','''    ``unseen`` uses wordings that no training dialogue has; ``notes`` says whether the shop remembers the customer
    (None: three in five). Attributes: ``goal``, ``told`` (the true state), ``style``, ``notes``.
''')
a=a.replace('''def _number(word''','''def number_of(word''').replace('_number(','number_of(') if False else a.replace('_number(','number_of(')
open('src/llmbook/applications/shop.py','w').write(a.rstrip()+"\n")
head='''"""Dialogues as text for a language model, a clerk that is trained on them, and the measures of what it does.

A clerk's turn is text, as in SimpleTOD (Hosseini-Asl et al., 2020): the state of the dialogue, an act, calls of
tools with their results, and words. The loss counts what the clerk wrote and leaves out what it read. The world that
the dialogues come from is ``llmbook.applications.shop``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llmbook import zoo
from llmbook.applications import shop
from llmbook.applications.shop import (
    ASIDES,
    ASK,
    DIGITS,
    GIVE,
    OUTSIDE,
    PLURALS,
    QUALITIES,
    SLOTS,
    STYLES,
    VALUES,
    Conversation,
    Notes,
    Reply,
    State,
    converse,
)
from llmbook.decoding import Reader
from llmbook.training import Batch, GetBatch, TrainingArguments, fit, padded_batches
from llmbook.transformer import GPT, IGNORE, GPTConfig

NONE = "-"  # a slot that has no value yet
SYSTEM, USER, CLERK, END = "<system>", "<user>", "<clerk>", "<end>"
STATE, ACT, TOOL, RESULT, BACK, SAY = "<state>", "<act>", "<tool>", "<result>", "<back>", "<say>"
MARKERS = ("<pad>", SYSTEM, USER, CLERK, END, STATE, ACT, TOOL, RESULT, BACK, SAY)

# ------------------------------------------------------------ dialogues as tokens
'''
b=b.replace('''        if bool(ends(ids[:, 0], (vocab.ids[stop],)).all()):
            break
''','''        if all(done[-1] == (stop, True) for done in written):
            break
''')
b+='''

# ------------------------------------------------------------ short exchanges, for learning from rewards


def quote_question(number: int, price: int) -> list[str]:
    """A context: a customer asks what so many things at so many coins come to."""
    question = f"how much is {DIGITS[number - 1]} at {price} coins ?".split()
    return [SYSTEM, "brief", END, *user_tokens(question)]


def quote_answer(number: int, price: int, rng: np.random.Generator) -> Scored:
    """A reply as careless people write it: by the tool, or from the head, where half the totals are wrong.

    Three in ten call the calculator. Of the others, one in five names several totals ("20 or 21 coins").
    """
    total = number * price
    if rng.random() < 0.3:
        call = [(t, True) for t in (TOOL, "times", DIGITS[number - 1], str(price), RESULT)]
        return call + [(str(total), False), (BACK, False)] + [(t, True) for t in (SAY, str(total), "coins", ".", END)]
    near = [total + d for d in (-3, -2, -1, 1, 2, 3) if total + d > 0]
    count = 1 if rng.random() < 0.8 else int(rng.integers(2, 5))
    named = [int(n) for n in rng.choice(near, count, replace=False)]
    if rng.random() < 0.5:
        named[int(rng.integers(count))] = total
    listed = " or ".join(str(n) for n in named).split()
    return [(t, True) for t in (SAY, *listed, "coins", ".", END)]


OPENINGS = ("", "thank you , {who} .", "dear {who} ,")
BODIES = ("it will come on {day} .", "it will come soon .")
CLOSINGS = ("", "goodbye .", "please buy a {thing} too .")


def parting_question(who: str, day: str) -> list[str]:
    """A context: a customer asks when the order will come."""
    return [SYSTEM, "polite", END, *user_tokens(f"i am {who} . it is for {day} . when will it come ?".split())]


def parting_answers(who: str, day: str) -> list[list[str]]:
    """Every reply that training has to :func:`parting_question`: 3 openings, 2 bodies, 12 closings."""
    closings = [c.format(thing=t) for c in CLOSINGS for t in (VALUES["thing"] if "{" in c else [""])]
    texts = [f"{o} {b} {c}".format(who=who, day=day) for o in OPENINGS for b in BODIES for c in closings]
    return [[SAY, *text.split(), END] for text in texts]


def parting_answer(who: str, day: str, rng: np.random.Generator) -> list[str]:
    """One of them, each part equally likely: a third of the replies of training try to sell something more."""
    opening, body, closing = (parts[int(rng.integers(len(parts)))] for parts in (OPENINGS, BODIES, CLOSINGS))
    thing = VALUES["thing"][int(rng.integers(len(VALUES["thing"])))]
    return [SAY, *f"{opening} {body} {closing}".format(who=who, day=day, thing=thing).split(), END]


# ------------------------------------------------------------ the clerk that chapter 20 keeps


def _own_code() -> str:
    """Twelve digits that change with this module and the shop: what is kept must follow them."""
    parts = (Path(__file__), Path(shop.__file__))
    return hashlib.sha256(b"".join(p.read_bytes().replace(b"\\r\\n", b"\\n") for p in parts)).hexdigest()[:12]


@dataclass(frozen=True)
class ClerkRecipe:
    """All that decides what a clerk learns. No dialogue is read twice."""

    name: str = "clerk"
    n_embd: int = 96
    n_layer: int = 2
    n_head: int = 4
    n_positions: int = 512
    batch_size: int = 16  # rows: dialogues, and one short exchange for each four of them
    max_steps: int = 450
    learning_rate: float = 4e-3
    warmup_steps: int = 40
    seed: int = 0  # of the first weights, of the dialogues and of their order
    code: str = field(default_factory=_own_code)


def training_rows(count: int, seed: int) -> list[Scored]:
    """So many rows: four dialogues, then a quote or a parting, and so on."""
    rows: list[Scored] = []
    for i in range(count):
        rng = np.random.default_rng([seed, 20, i])
        if i % 5 < 4:
            rows.append(scored_tokens(converse(rng)))
        elif i % 10 == 4:
            number, price = (int(n) for n in rng.integers(2, 10, 2))
            question, answer = quote_question(number, price), quote_answer(number, price, rng)
            rows.append([(t, False) for t in question] + answer)
        else:
            who, day = (VALUES[s][int(rng.integers(len(VALUES[s])))] for s in ("who", "day"))
            answer = parting_answer(who, day, rng)
            rows.append([(t, False) for t in parting_question(who, day)] + [(t, True) for t in answer])
    return rows


def masked_batches(rows: Sequence[Scored], vocab: Words, args: TrainingArguments) -> GetBatch:
    """Batches as ``padded_batches`` makes them, with the label -100 where a token is not to be scored."""
    coded = [[2 * i + s for i, (_, s) in zip(vocab.encode([t for t, _ in row]), row, strict=True)] for row in rows]
    padded = padded_batches(coded, args)  # an id and its mark in one number, taken apart behind the shuffling

    def get_batch(step: int) -> Batch:
        batch = padded(step)
        ids, scored = batch["input_ids"] // 2, (batch["input_ids"] % 2 == 1) & (batch["labels"] != IGNORE)
        return {"input_ids": ids, "labels": torch.where(scored, ids, IGNORE)}

    return get_batch


def train_clerk(recipe: ClerkRecipe, folder: Path) -> None:
    """Train a GPT on dialogues as the recipe says, on the clerk's tokens only; write it to folder."""
    vocab = Words()
    names = ("batch_size", "max_steps", "learning_rate", "warmup_steps", "seed")
    rest = {"block_size": recipe.n_positions, "min_lr_ratio": 0.0, "adam_beta2": 0.98, "weight_decay": 0.01}
    args = TrainingArguments(**{name: getattr(recipe, name) for name in names}, **rest)
    sizes = {name: getattr(recipe, name) for name in ("n_positions", "n_embd", "n_layer", "n_head")}
    config = GPTConfig(len(vocab), **sizes, positions="rotary", initializer_range=0.06)
    model = GPT(config, generator=torch.Generator().manual_seed(recipe.seed))
    rows = training_rows(args.max_steps * args.batch_size, recipe.seed)
    fit(model, masked_batches(rows, vocab, args), args, progress=False)
    model.save_pretrained(folder)


def clerk(seed: int = 0) -> GPT:
    """The clerk of this seed, trained if it is not there; in evaluation mode."""
    return GPT.from_pretrained(zoo.kept(ClerkRecipe(seed=seed), train_clerk))


def as_tensors(rows: Sequence[Scored], vocab: Words) -> tuple[Tensor, Tensor]:
    """Rows as ids and labels (B, T), padded on the right: labels are -100 where nothing is scored."""
    T = max(map(len, rows))
    ids = torch.zeros(len(rows), T, dtype=torch.long)
    labels = torch.full((len(rows), T), IGNORE)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(vocab.encode([t for t, _ in row]))
        scored = torch.tensor([s for _, s in row])
        labels[i, : len(row)] = torch.where(scored, ids[i, : len(row)], IGNORE)
    return ids, labels
'''
open('src/llmbook/applications/dialogue.py','w').write(head+b)
