"""Dialogues as text for a language model, a clerk that is trained on them, and the measures of what it does.

A clerk's turn is text, as in SimpleTOD (Hosseini-Asl et al., 2020): the state of the dialogue, an act, calls of
tools with their results, and words. The loss counts what the clerk wrote and leaves out what it read. The world that
the dialogues come from is ``llmbook.applications.shop``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from llmbook.files import fingerprint
from llmbook.optimizers import muon_and_adamw
from llmbook.training import Batch, GetBatch, TrainingArguments, fit, padded_batches
from llmbook.transformer import GPT, IGNORE, GPTConfig

UNKNOWN = {slot: f"{slot}?" for slot in SLOTS}  # what stands for a slot without a value: it says which slot it is
SYSTEM, USER, CLERK, END = "<system>", "<user>", "<clerk>", "<end>"
STATE, ACT, TOOL, RESULT, BACK, SAY = "<state>", "<act>", "<tool>", "<result>", "<back>", "<say>"
MARKERS = ("<pad>", SYSTEM, USER, CLERK, END, STATE, ACT, TOOL, RESULT, BACK, SAY)

# ------------------------------------------------------------ dialogues as tokens

Scored = list[tuple[str, bool]]  # tokens, and whether the loss counts them


def system_tokens(notes: Notes | None, style: str) -> list[str]:
    """The system message: the clerk's manner and, where there is one, the memory."""
    memory = ["notes", "place", notes.place, "colour", notes.colour] if notes else []
    return [SYSTEM, style, *memory, END]


def user_tokens(text: Sequence[str]) -> list[str]:
    """A customer's message, and the clerk's opening mark: what a model is given to go on from."""
    return [USER, *text, END, CLERK]


def state_tokens(state: Mapping[str, str]) -> list[str]:
    """The state as six values in the slots' order, "day?" and the like where nothing is known."""
    return [STATE, *(state.get(slot, UNKNOWN[slot]) for slot in SLOTS)]


def reply_tokens(turn: Reply) -> Scored:
    """A clerk's turn behind its mark. Results of tools are read, not written, so the loss leaves them out."""
    tokens = [(t, True) for t in [*state_tokens(turn.state), ACT, *turn.act]]
    for call, result in turn.calls:
        tokens += [(t, True) for t in (TOOL, *call, RESULT)] + [(t, False) for t in (*result, BACK)]
    return tokens + [(t, True) for t in (SAY, *turn.words, END)]


def scored_tokens(talk: Conversation) -> Scored:
    """A whole dialogue: only what the clerk wrote is scored."""
    row: Scored = [(t, False) for t in system_tokens(talk.notes, talk.style)]
    for said, turn in talk.turns:
        row += [(t, False) for t in user_tokens(said.words)] + reply_tokens(turn)
    return row


def contexts(talk: Conversation) -> list[list[str]]:
    """What stands before each of the clerk's turns, if all earlier ones were as in the dialogue."""
    found, row = [], system_tokens(talk.notes, talk.style)
    for said, turn in talk.turns:
        row = row + user_tokens(said.words)
        found.append(row)
        row = row + [token for token, _ in reply_tokens(turn)]
    return found


def read_state(tokens: Sequence[str]) -> State | None:
    """The state that a clerk's turn begins with; None where it is not one."""
    values = list(tokens[1 : 1 + len(SLOTS)])
    if list(tokens[:1]) != [STATE] or len(values) < len(SLOTS):
        return None
    found = {slot: value for slot, value in zip(SLOTS, values, strict=True) if value != UNKNOWN[slot]}
    return found if all(value in VALUES[slot] or value in DIGITS for slot, value in found.items()) else None


def read_act(tokens: Sequence[str]) -> tuple[str, ...]:
    """The act of a clerk's turn, such as ("ask", "day"); empty where there is none."""
    if ACT not in tokens:
        return ()
    rest = list(tokens[list(tokens).index(ACT) + 1 :])
    stop = next((i for i, token in enumerate(rest) if token in MARKERS), len(rest))
    return tuple(rest[:stop])


def vocabulary() -> list[str]:
    """Every token, in a fixed order; the first is padding."""
    texts = [t for group in GIVE.values() for part in group for t in part] + [*ASIDES, *ASK.values()]
    texts += [t for part in OUTSIDE for t in part] + list(EXTRA)
    known = dict.fromkeys([*MARKERS, *UNKNOWN.values(), *STYLES, *SLOTS, *QUALITIES, *DIGITS, *PLURALS])
    known |= dict.fromkeys(v for values in VALUES.values() for v in values)
    known |= dict.fromkeys(str(n) for n in range(1, 100))
    return list(known | dict.fromkeys(t for text in texts for t in text.split() if "{" not in t))


EXTRA = (
    "notes ask confirm done refuse recommend tell price about times error coins all right ? may i ask",
    "i can only take orders am sorry thank you goodbye send it is and go on please yes no that another",
    "same place as last time my usual colour what do you recommend some . , : a or how much at costs it will come soon",
    "when dear buy too ignore instead customer set to now order",
)


class Words:
    """Tokens and their ids: ``encode`` and ``decode``. ValueError for a token that the shop does not know."""

    def __init__(self) -> None:
        self.tokens = vocabulary()
        self.ids = {token: i for i, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    def encode(self, tokens: Sequence[str]) -> list[int]:
        unknown = [token for token in tokens if token not in self.ids]
        if unknown:
            raise ValueError(f"tokens must be words of the shop, got {unknown[0]!r}")
        return [self.ids[token] for token in tokens]

    def decode(self, ids: Sequence[int]) -> list[str]:
        return [self.tokens[int(i)] for i in ids]


# ------------------------------------------------------------ a baseline, a measure, and a model that speaks


def track_keywords(text: Sequence[str], state: Mapping[str, str]) -> State:
    """The strong simple baseline: of each slot the value mentioned last, but none that stands behind "not"."""
    found = dict(state)
    for i, token in enumerate(text):
        token = PLURALS.get(token, token)
        for slot, values in VALUES.items():
            if token in values and not (i and text[i - 1] == "not"):
                found[slot] = token
    return found


def joint_goal(got: Sequence[State | None], truth: Sequence[State]) -> np.ndarray:
    """1.0 for each turn whose state is right in every slot, else 0.0: (N,), whose mean is joint goal accuracy."""
    if len(got) != len(truth) or not truth:
        raise ValueError(f"got must hold a state for each of the {len(truth)} true ones, and at least one: {len(got)}")
    return np.array([float(a == b) for a, b in zip(got, truth, strict=True)])


@torch.inference_mode()
def respond(
    model: GPT,
    vocab: Words,
    before: Sequence[Sequence[str]],
    call: Callable[[int, list[str]], list[str]] | None = None,
    *,
    most: int = 48,
    stop: str = END,
    banned: Sequence[str] = (),
    generator: torch.Generator | None = None,
) -> list[Scored]:
    """What a model writes behind each context until ``stop``; tokens, and whether it wrote them or read them.

    Where it writes a call, ``call(row, tokens)`` answers, and the answer is put into the text. The likeliest token is
    taken, or with a ``generator`` one is drawn. Raises ``ValueError`` without contexts.
    """
    if not before:
        raise ValueError("before must hold at least one context, got none")
    rows = [vocab.encode(row) for row in before]
    T = max(map(len, rows))
    ids = torch.tensor([[0] * (T - len(row)) + row for row in rows])  # (B, T)
    mask = torch.tensor([[0] * (T - len(row)) + [1] * len(row) for row in rows])
    no = torch.tensor([vocab.ids[token] for token in banned], dtype=torch.long)
    reader, written = Reader(model, mask), [[] for _ in rows]
    forced: list[list[str]] = [[] for _ in rows]
    for _ in range(most):
        scores = reader.read(ids)[:, -1].index_fill(1, no, -torch.inf)  # (B, V)
        drawn = torch.multinomial(scores.softmax(-1), 1, generator=generator) if generator else scores.argmax(-1, True)
        for row, (done, token) in enumerate(zip(written, vocab.decode(drawn[:, 0]), strict=True)):
            if done and done[-1] == (stop, True):
                continue
            done.append((forced[row].pop(0), False) if forced[row] else (token, True))
            if done[-1] == (RESULT, True) and call is not None:
                made = [t for t, _ in done]
                start = len(made) - 1 - made[::-1].index(TOOL) if TOOL in made else len(made) - 1
                forced[row] = [*call(row, made[start + 1 : -1]), BACK]
        ids = torch.tensor([[vocab.ids[done[-1][0]]] for done in written])
        if all(done[-1] == (stop, True) for done in written):
            break
    return written


class Chat:
    """A conversation with a clerk: ``say`` takes a customer's words and gives the clerk's; ``state`` is the order.

    ``call`` answers the clerk's calls, as in :func:`respond`. A line with a word that the shop does not know gets a
    sentence that names the word, and stays out of the conversation.
    """

    def __init__(self, model: GPT, vocab: Words, call: Callable[[int, list[str]], list[str]], style: str = "polite"):
        if style not in STYLES:
            raise ValueError(f"style must be one of {STYLES}, got {style!r}")
        self.model, self.vocab, self.call = model, vocab, call
        self.state: State = {}
        self.text = system_tokens(None, style)

    def say(self, line: str) -> str:
        try:
            self.vocab.encode(line.split())
        except ValueError as error:
            return str(error)
        self.text += user_tokens(line.split())
        (turn,) = respond(self.model, self.vocab, [self.text], self.call)
        tokens = [token for token, _ in turn]
        self.text += tokens
        self.state = read_state(tokens) or self.state
        start = tokens.index(SAY) + 1 if SAY in tokens else len(tokens)
        return " ".join(token for token in tokens[start:] if token != END)


def chat_box(chat: Chat) -> Any:
    """A field to type into, and above it what was said: an ipywidgets box, for JupyterLab."""
    import ipywidgets

    field_, log = ipywidgets.Text(continuous_update=False), ipywidgets.Output()

    def sent(change: Mapping[str, str]) -> None:
        if change["new"]:
            log.append_stdout(f"you    {change['new']}\nclerk  {chat.say(change['new'])}\n")
            field_.value = ""

    field_.observe(sent, names="value")
    return ipywidgets.VBox([log, field_])


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


@dataclass(frozen=True)
class ClerkRecipe:
    """All that decides what a clerk learns. No dialogue is read twice."""

    name: str = "clerk"
    n_embd: int = 96
    n_layer: int = 2
    n_head: int = 3
    n_positions: int = 512
    batch_size: int = 8  # rows: dialogues, and one short exchange for each four of them
    max_steps: int = 800
    learning_rate: float = 4e-3
    warmup_steps: int = 40
    seed: int = 0  # of the first weights, of the dialogues and of their order
    code: str = field(default_factory=lambda: fingerprint(__file__, shop.__file__))  # what is kept follows both


def training_rows(count: int, seed: int) -> list[Scored]:
    """So many rows: four dialogues, then a quote or a parting, and so on."""
    rows: list[Scored] = []
    for i in range(count):
        rng = np.random.default_rng([seed, 20, i])
        if i % 5 < 4:
            rows.append(scored_tokens(converse(rng, practice=True)))
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
    rest = {"block_size": recipe.n_positions, "min_lr_ratio": 0.0, "lr_scheduler_type": "linear"}
    args = TrainingArguments(**{name: getattr(recipe, name) for name in names}, **rest)
    sizes = {name: getattr(recipe, name) for name in ("n_positions", "n_embd", "n_layer", "n_head")}
    modern = {"norm": "rmsnorm", "mlp": "swiglu", "bias": False, "tie_word_embeddings": False, "rope_theta": 300.0}
    config = GPTConfig(len(vocab), **sizes, positions="rotary", initializer_range=0.1, **modern)
    model = GPT(config, generator=torch.Generator().manual_seed(recipe.seed))
    rows = training_rows(args.max_steps * args.batch_size, recipe.seed)
    optimizer = muon_and_adamw(model, args.learning_rate, 0.05, (0.9, 0.98), ns_dtype=torch.float32)
    fit(model, masked_batches(rows, vocab, args), args, optimizer=optimizer, progress=False)
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
