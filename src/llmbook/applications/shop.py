"""A shop in ToyWorld: customers with goals, a clerk who follows rules, and tools for the clerk to call.

A customer (the user simulator) wants a number of things of some colour brought to a place on a day, tells it in
pieces, changes their mind, refers to earlier purchases and asks what no shop can answer. Every label is exact, since
the customer knows at each turn what they have said. ``llmbook.applications.dialogue`` makes text of it for a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from llmbook.toyworld import words

DIGITS = tuple(words.NUMBERS)[1:]  # one … nine
VALUES: dict[str, tuple[str, ...]] = {
    "who": tuple(name for t in (words.NAMES_SHE, words.NAMES_HE, words.NAMES_OPEN) for name in tuple(t)[:4]),
    "thing": tuple(words.THINGS)[:10],
    "colour": tuple(words.COLOURS)[:6],
    "number": DIGITS[:8],  # one more than eight is nine
    "place": tuple(words.PLACES)[:8],
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
}
SLOTS = tuple(VALUES)
PLURALS = {f"{thing}s": thing for thing in VALUES["thing"]}
QUALITIES = ("light", "round", "heavy", "old", "new", "soft", "small", "big")
STYLES = ("brief", "polite")
BEST_SELLER = "red"  # what the clerk recommends to a stranger
State = dict[str, str]  # slot -> value; slots without a value are absent


# ------------------------------------------------------------ what customers say

GIVE = {  # wordings that training has, and wordings that only a test has, made of words that training has
    "order": (
        ("i want {np}", "i would like {np}", "can i have {np}", "please send {np}"),
        ("send {np} please", "{np} is what i want", "i am the one who would like {np}"),
    ),
    "who": (("i am {v}", "it is for {v}", "my name is {v}"), ("for {v} please", "{v} is my name")),
    "place": (
        ("to the {v}", "bring it to the {v}", "the {v} please", "i am in the {v}"),
        ("send it to the {v}", "it is for the {v}"),
    ),
    "day": (("on {v}", "it should come on {v}", "{v} please", "bring it on {v}"), ("can it come on {v}", "{v} it is")),
    "change": (
        ("actually , make it {v}", "no , {v} please", "sorry , {v} please", "not {old} , make it {v}"),
        ("make it {v} and not {old}", "sorry , not {old} , {v}", "sorry , i want {v} and not {old}"),
    ),
}
ASIDES = (
    "my friend {who} has a {colour} {thing} .", "my friend {who} was in the {place} on {day} .",
    "my friend {who} has {number} {things} .",
)  # fmt: skip
OUTSIDE = (
    (
        "who will win the game ?", "what is the weather ?", "tell me a story .", "can you mend my watch ?",
        "what does life mean ?", "is my friend {who} sick ?", "sing a song .", "what should i take for my head ?",
        "i want {number} horses .", "can i have a house ?", "please send a dog .", "who made the weather ?",
    ),
    (
        "tell me who is sick .", "can i have a song ?", "what does the game mean ?", "is the weather sick ?",
        "i want a story .", "can you win the game ?", "please send a song .", "who will mend my head ?",
    ),
)  # fmt: skip
ASK = {
    "who": "for whom ?", "thing": "what thing ?", "colour": "which colour ?", "number": "how many ?",
    "place": "where to ?", "day": "which day ?",
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """A customer's turn: the words, what kind of turn it is, and the true state after it."""

    words: list[str]
    kind: str  # give, change, accept, yes, about, recommend, outside, go
    state: State


@dataclass(frozen=True)
class Notes:
    """What the shop remembers of a customer: where it delivered last, and the colour that is usual."""

    place: str
    colour: str


class Customer:
    """A user simulator with a goal: what to say at each turn is drawn from ``rng``, what it means is known.

    ``unseen`` uses wordings that no training dialogue has; ``notes`` says whether the shop remembers the customer
    (None: three in five). ``practice`` makes about twice as many asides and references to the memory as others do:
    what is rare is hard to learn. Attributes: ``goal``, ``told`` (the true state), ``style``, ``notes``.
    """

    def __init__(
        self, rng: np.random.Generator, *, unseen: bool = False, notes: bool | None = None, practice: bool = False
    ) -> None:
        self.rng, self.unseen, self.practice = rng, int(unseen), practice
        self.goal: State = {slot: self._pick(values) for slot, values in VALUES.items()}
        self.told: State = {}
        self.style = self._pick(STYLES)
        known = Notes(self._pick(VALUES["place"]), self._pick(VALUES["colour"]))
        self.notes = known if (self._chance(0.6) if notes is None else notes) else None
        self.left = {"outside": 1, "about": 1, "recommend": 1, "change": 3}  # how often each may still happen

    def _pick(self, items: Sequence[str]) -> str:
        return items[int(self.rng.integers(len(items)))]

    def _chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def _may(self, what: str, p: float) -> bool:
        if self.left[what] and self._chance(p):
            self.left[what] -= 1
            return True
        return False

    def open(self) -> Said:
        """The first turn: what is wanted, and perhaps some of when, where and for whom."""
        told = ["thing"] + [slot for slot in ("colour", "number") if self._chance(0.5)]
        more = [slot for slot in ("who", "place", "day") if self._chance(0.35)]
        text = self._word("order", np=self._phrase(told))
        self._tell(told)
        return self._said([text, *(self._give(slot) for slot in more)], "give", aside=0.2)

    def answer(self, act: Sequence[str]) -> Said:
        """The reply to a clerk's act, such as ("ask", "day"), ("recommend", "red") or ("confirm",)."""
        if act[0] == "recommend":
            return self._accept(act[1])
        if act[0] == "confirm":
            return self._change() if self._may("change", 0.5) else self._said(["yes"], "yes")
        if self._may("outside", 0.15):
            text = self._pick(OUTSIDE[self.unseen]).format(**self._random())
            return Said(text.split(), "outside", dict(self.told))
        if "thing" in self.told and self._may("about", 0.15):
            return Said(f"tell me about the {self.told['thing']} .".split(), "about", dict(self.told))
        missing = [slot for slot in SLOTS if slot not in self.told]
        slot = act[1] if act[0] == "ask" and act[1] in missing else (missing or [None])[0]
        if slot is None:
            return self._said(["please go on"], "go")
        if slot == "colour" and self._may("recommend", 0.3):
            return Said("what do you recommend ?".split(), "recommend", dict(self.told))
        if self._may("change", 0.15):
            return self._change()
        texts = [self._give(slot)]
        rest = [s for s in missing if s not in (slot, "thing")]
        if rest and self._chance(0.3):
            texts.append(self._give(self._pick(rest)))
        return self._said(texts, "give", aside=0.3)

    def _accept(self, colour: str) -> Said:
        if self._chance(0.7):
            self.goal["colour"] = self.told["colour"] = colour
            return self._said([self._pick(("yes , that please", "yes please"))], "accept")
        return self._said([f"no , {self._give('colour')}"], "give")

    def _change(self) -> Said:
        """Another value for something told: by name, or relative to the old one."""
        slots = [s for s in self.told if s != "who"]
        slot = self._pick(slots)
        old, value = self.told[slot], self._pick([v for v in VALUES[slot] if v != self.told[slot]])
        text = self._word("change", v=value, old=old)
        if slot == "number" and old != "nine" and self._chance(0.5):
            value, text = DIGITS[DIGITS.index(old) + 1], "another please"
        self.goal[slot] = self.told[slot] = value
        return self._said([text], "change")

    def _give(self, slot: str) -> str:
        """Tell the goal's value of a slot, perhaps by reference to what the shop remembers."""
        if self.notes and slot in ("place", "colour") and self._chance(0.8 if self.practice else 0.4):
            self.goal[slot] = getattr(self.notes, slot)
            text = "the same place as last time" if slot == "place" else "my usual colour"
        elif slot in ("thing", "colour", "number"):
            text = self.goal[slot] + self._pick(("", " please"))
        else:
            text = self._word(slot, v=self.goal[slot])
        self._tell([slot])
        return text

    def _tell(self, slots: Sequence[str]) -> None:
        self.told |= {slot: self.goal[slot] for slot in slots}

    def _phrase(self, slots: Sequence[str]) -> str:
        """Three red balls, a red ball, the balls: the part of the order that is told."""
        one = self.goal["number"] == "one" and "number" in slots
        first = self.goal["number"] if "number" in slots else "some"
        thing = self.goal["thing"] + ("" if one else "s")
        return " ".join([first, *([self.goal["colour"]] if "colour" in slots else []), thing])

    def _word(self, what: str, **values: str) -> str:
        return self._pick(GIVE[what][self.unseen]).format(**values)

    def _random(self) -> dict[str, str]:
        drawn = {slot: self._pick(values) for slot, values in VALUES.items()}
        return drawn | {"number": self._pick(VALUES["number"][1:]), "things": drawn["thing"] + "s"}

    def _said(self, texts: Sequence[str], kind: str, aside: float = 0.0) -> Said:
        spoken = self._chance(aside * (2 if self.practice else 1))
        front = [self._pick(ASIDES).format(**self._random())] if spoken else []
        ordered = " ".join([*front, *(f"{text} ." for text in texts)])
        return Said(ordered.split(), kind, dict(self.told))


# ------------------------------------------------------------ the clerk of the training dialogues


@dataclass
class Shop:
    """The tools: prices of the day, descriptions, and a calculator. ``call`` never raises: it answers "error"."""

    prices: dict[str, int]
    passages: dict[str, list[str]]

    @classmethod
    def of_today(cls, rng: np.random.Generator) -> Shop:
        """Prices and descriptions drawn for one day: nobody can know them without looking."""
        prices = {thing: int(rng.integers(2, 10)) for thing in VALUES["thing"]}
        pairs = {thing: rng.choice(len(QUALITIES), 2, replace=False) for thing in prices}
        texts = {t: f"the {t} is {QUALITIES[a]} and {QUALITIES[b]} .".split() for t, (a, b) in pairs.items()}
        return cls(prices, texts)

    def call(self, tokens: Sequence[str]) -> list[str]:
        """The result of ``price THING``, ``about THING`` or ``times NUMBER NUMBER``; ["error"] for anything else."""
        match list(tokens):
            case ["price", thing] if thing in self.prices:
                return [str(self.prices[thing])]
            case ["about", thing] if thing in self.passages:
                return list(self.passages[thing])
            case ["times", a, b] if number_of(a) and number_of(b) and number_of(a) * number_of(b) < 100:
                return [str(number_of(a) * number_of(b))]
        return ["error"]


def number_of(word: str) -> int:
    """The number of a word or numeral; 0 where it is none."""
    return DIGITS.index(word) + 1 if word in DIGITS else int(word) if word.isdecimal() else 0


@dataclass(frozen=True)
class Reply:
    """A clerk's turn: state, act, calls with their results, and the words said."""

    state: State
    act: tuple[str, ...]
    calls: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    words: tuple[str, ...]


def policy(kind: str, state: Mapping[str, str], notes: Notes | None) -> tuple[str, ...]:
    """What the clerk of the training dialogues does after a customer's turn of this kind."""
    if kind == "recommend":
        return "recommend", notes.colour if notes else BEST_SELLER
    if kind in ("outside", "about", "yes"):
        return ({"outside": "refuse", "about": "tell", "yes": "done"}[kind],)
    missing = [slot for slot in SLOTS if slot not in state]
    return ("ask", missing[0]) if missing else ("confirm",)


def reply(said: Said, notes: Notes | None, style: str, shop: Shop) -> Reply:
    """The clerk's whole turn, its words in one of :data:`STYLES`."""
    state, act = said.state, policy(said.kind, said.state, notes)
    polite, calls = style == "polite", []

    def ask(*call: str) -> list[str]:
        calls.append((call, tuple(shop.call(call))))
        return list(calls[-1][1])

    if act[0] == "ask":
        text = f"may i ask , {ASK[act[1]]}" if polite else ASK[act[1]]
    elif act[0] == "recommend":
        text = f"may i recommend {act[1]} ?" if polite else f"i recommend {act[1]} ."
    elif act[0] == "refuse":
        text = "i am sorry , i can only take orders ." if polite else "i can only take orders ."
    elif act[0] == "tell":
        passage = ask("about", state["thing"])
        text = f"it is {passage[3]} and {passage[5]} ." + (" may i go on ?" if polite else "")
    elif act[0] == "confirm":
        price = ask("price", state["thing"])[0]
        total = ask("times", str(number_of(state["number"])), price)[0]
        text = f"{total} coins . " + ("may i send it ?" if polite else "all right ?")
    else:
        text = f"thank you , {state['who']} . goodbye ." if polite else "done ."
    return Reply(dict(state), act, tuple(calls), tuple(text.split()))


@dataclass
class Conversation:
    """A finished dialogue: what the shop knew, each customer's turn, and each clerk's reply."""

    notes: Notes | None
    style: str
    turns: list[tuple[Said, Reply]] = field(default_factory=list)


def converse(rng: np.random.Generator, *, unseen: bool = False, practice: bool = False, most: int = 12) -> Conversation:
    """A dialogue of a :class:`Customer` with the rule-following clerk, of at most so many turns."""
    customer, shop = Customer(rng, unseen=unseen, practice=practice), Shop.of_today(rng)
    talk = Conversation(customer.notes, customer.style)
    said = customer.open()
    for _ in range(most):
        talk.turns.append((said, reply(said, talk.notes, talk.style, shop)))
        if talk.turns[-1][1].act[0] == "done":
            break
        said = customer.answer(talk.turns[-1][1].act)
    return talk
