"""The grammar of ToyWorld: what is known (`State`), what can be said (`EVENTS`), who draws a word (`CHOOSERS`).

A template is a sentence. `{name=chooser}` is a slot, drawn by that chooser (`{name}` is short for
`{name=name}`); anything else is a word. Its Chinese uses the slots' names; `word:english` aligns a Chinese
word with an English one, `{thing.m}` is the measure word of a slot. Its effects are facts:
`thing.place=place` (the thing is now where slot `place` says), `thing.holder=-` (no longer held),
`who.fruit+=n` (count). Weights are relative: among the sentences that can still follow, a sentence has its
weight over their sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from llmbook import _toyworld_words as words


class Step:
    """The next-token distribution at one position: `probs` maps each possible token to its probability.

    `kind` says what sort of choice it is: "word" (the sentence leaves one word only), "choice" (a free draw)
    or the name of the fact that settles it ("place", "gender", "count", …). `source` is the index of the
    earlier token that settled that fact, or -1.
    """

    __slots__ = ("_entropy", "kind", "probs", "source")

    def __init__(self, probs: dict[str, float], kind: str = "choice", source: int = -1):
        self.probs, self.kind, self.source = probs, kind, source
        self._entropy = 0.0 if len(probs) == 1 else None

    @property
    def entropy(self) -> float:
        """Entropy of this distribution in nats: what no model can avoid losing here on average."""
        if self._entropy is None:
            self._entropy = -math.fsum(p * math.log(p) for p in self.probs.values())
        return self._entropy

    def draw(self, u: float) -> str:
        """Turn a uniform number in [0, 1) into a token."""
        for token, p in self.probs.items():
            u -= p
            if u < 0:
                return token
        return token  # rounding only: the probabilities sum to 1 - 1e-16


class Fact(NamedTuple):
    """One thing that the text has settled, the index of the token that did, and of the event."""

    value: str | int
    source: int
    event: int


@dataclass
class State:
    """All that a prefix of a story has settled. A function of the tokens read, and of nothing else."""

    facts: dict[str, dict[str, Fact]] = field(default_factory=dict)  # relation -> subject -> fact
    cast: list[str] = field(default_factory=list)  # people, in order of appearance
    topic: str | None = None  # whom "she" or "he" would mean now
    stage: str = "day"  # which templates may come next
    pending: Event | None = None  # the question that is being answered
    events: list[Event] = field(default_factory=list)
    at: dict[str, int] = field(default_factory=dict)  # token index of each slot of the sentence being told
    length: int = 0  # tokens so far

    def get(self, relation: str, subject: str) -> str | int | None:
        """The value of a fact, or None where the text has not settled it."""
        fact = self.facts.get(relation, {}).get(subject)
        return None if fact is None else fact.value

    def source(self, relation: str, subject: str) -> int:
        return self.facts[relation][subject].source

    def know(self, relation: str, subject: str, value: str | int, source: int) -> None:
        self.facts.setdefault(relation, {})[subject] = Fact(value, source, len(self.events))

    def forget(self, relation: str, subject: str) -> None:
        self.facts.get(relation, {}).pop(subject, None)

    def subjects(self, relation: str, value: str) -> tuple[str, ...]:
        """Everything that stands in `relation` to `value`: what Anna holds, for example."""
        return tuple(s for s, fact in self.facts.get(relation, {}).items() if fact.value == value)


@dataclass
class Event:
    """One sentence that has been told: `slots` has names resolved ("she" -> "Anna"), `at` has token indices."""

    template: Template
    slots: dict[str, str]
    at: dict[str, int]
    start: int
    end: int = -1

    @property
    def kind(self) -> str:
        return self.template.kind

    def __repr__(self) -> str:
        return f"Event({self.kind!r}, {self.slots}, tokens {self.start}:{self.end})"


# ------------------------------------------------------------------------------------------------ choosers
# A chooser looks at the state and at the slots filled so far and gives a Step, or None where nothing fits
# (then the sentence cannot be said now).

Chooser = Callable[..., Step | None]  # (world, state, slots)
CHOOSERS: dict[str, Chooser] = {}


def chooser(function: Chooser) -> Chooser:
    CHOOSERS[function.__name__] = function
    return function


@lru_cache(maxsize=100_000)
def uniform(options: tuple[str, ...]) -> Step | None:
    """Every option equally likely."""
    return Step(dict.fromkeys(options, 1 / len(options))) if options else None


@lru_cache(maxsize=100_000)
def favour(options: tuple[str, ...], favourites: tuple[str, ...], share: float) -> Step | None:
    """`share` of the mass on the favourites, the rest on the others; all of it where one group is empty."""
    liked = [o for o in options if o in favourites]
    others = [o for o in options if o not in favourites]
    if not liked or not others:
        return uniform(options)
    probs = dict.fromkeys(liked, share / len(liked)) | dict.fromkeys(others, (1 - share) / len(others))
    return Step({o: p for o, p in probs.items() if p > 0})


def settled(state: State, relation: str, subject: str, kind: str | None = None) -> Step | None:
    """The one token that the facts allow."""
    fact = state.facts.get(relation, {}).get(subject)
    return None if fact is None else Step({str(fact.value): 1.0}, kind or relation, fact.source)


def thing_of(state: State, things: tuple[str, ...]) -> Step | None:
    """One of some things that the story has mentioned; settled where there is only one."""
    return Step({things[0]: 1.0}, "thing", state.source("colour", things[0])) if len(things) == 1 else uniform(things)


@chooser
def day(world, state, slots):
    return settled(state, "day", "story") or uniform(world.days)


@chooser
def newcomer(world, state, slots):
    """A name: half of the mass on names of open gender, half on names whose gender fits the bias."""
    share_she = world.she(slots["job"])
    probs = {}
    for names, mass in (
        (world.names_open, 0.5),
        (world.names_she, share_she / 2),
        (world.names_he, (1 - share_she) / 2),
    ):
        names = [n for n in names if n not in state.cast]
        probs |= dict.fromkeys(names, mass / max(1, len(names))) if mass else {}
    total = math.fsum(probs.values())
    return Step({name: p / total for name, p in probs.items()})


@chooser
def work(world, state, slots):
    return favour(world.places, (world.workplace[slots["job"]],), 0.6)


@chooser
def who(world, state, slots):
    """The subject: somebody's name, or more often a pronoun for the subject of the sentence before."""
    if state.topic is None:
        return uniform(tuple(state.cast))
    return _subject(tuple(state.cast), _she(world, state, state.topic))


@lru_cache(maxsize=10_000)
def _subject(cast: tuple[str, ...], share_she: float) -> Step:
    probs = dict.fromkeys(cast, 0.4 / len(cast)) | {"she": 0.6 * share_she, "he": 0.6 * (1 - share_she)}
    return Step({token: p for token, p in probs.items() if p > 0})


def _she(world, state, person) -> float:
    """Probability that a pronoun for this person is feminine: 0 or 1 once settled, else set by the bias."""
    gender = state.get("gender", person)
    return world.she(state.get("job", person)) if gender is None else float(gender == "she")


@chooser
def poss(world, state, slots):
    """her or his"""
    person = slots["who"]
    share = _she(world, state, person)
    if share in (0.0, 1.0) and state.get("gender", person):
        return Step({"her" if share else "his": 1.0}, "gender", state.source("gender", person))
    return favour(("her", "his"), ("her",), share)


@chooser
def other(world, state, slots):
    """Somebody else. With two people this is settled: whoever is not the subject."""
    rest = tuple(name for name in state.cast if name != slots["who"])
    return Step({rest[0]: 1.0}, "person", state.source("name", rest[0])) if len(rest) == 1 else uniform(rest)


@chooser
def speaker(world, state, slots):
    """Whoever was asked answers."""
    return Step({slots["who"]: 1.0}, "person", state.at["who"])


@chooser
def elsewhere(world, state, slots):
    """Any place but the one where the subject is."""
    here = state.get("place", slots["who"])
    return uniform(tuple(p for p in world.places if p != here))


@chooser
def place(world, state, slots):
    return uniform(world.places)


@chooser
def home(world, state, slots):
    """Where such a thing is usually left, or anywhere."""
    return favour(world.places, (world.homes[slots["thing"]],), 0.3)


@chooser
def new(world, state, slots):
    """A thing that the story has not mentioned."""
    known = state.facts.get("colour", {})
    return uniform(tuple(t for t in world.things if t not in known))


@chooser
def held(world, state, slots):
    return thing_of(state, state.subjects("holder", slots["who"]))


@chooser
def theirs(world, state, slots):
    """Something that the person asked holds (any other person, where nobody was named yet)."""
    others = [slots["other"]] if "other" in slots else [n for n in state.cast if n != slots["who"]]
    return thing_of(state, tuple(t for name in others for t in state.subjects("holder", name)))


@chooser
def lost(world, state, slots):
    """A thing that lies somewhere."""
    return thing_of(state, tuple(t for t in state.facts.get("colour", {}) if state.get("place", t)))


@chooser
def kept(world, state, slots):
    """The place where the thing was left: settled, however long ago."""
    return settled(state, "place", slots["thing"])


@chooser
def guess(world, state, slots):
    """Where somebody looks first: the true place with probability 0.6."""
    return favour(world.places, (state.get("place", slots["thing"]),), 0.6)


@chooser
def hit(world, state, slots):
    return uniform(("yes",)) if slots["place"] == state.get("place", slots["thing"]) else None


@chooser
def miss(world, state, slots):
    return None if hit(world, state, slots) else uniform(("yes",))


@chooser
def asked(world, state, slots):
    """A thing to ask about: mostly one that the story has mentioned and the asker does not hold."""
    mentioned = state.facts.get("colour", {})
    mine = state.subjects("holder", slots["who"])
    known = tuple(t for t in mentioned if t not in mine)
    return favour(tuple(t for t in world.things if t not in mine), known, 0.85)


@chooser
def mentioned(world, state, slots):
    return thing_of(state, tuple(state.facts.get("colour", {})))


@chooser
def shade(world, state, slots):
    return settled(state, "colour", slots["thing"])


@chooser
def mine(world, state, slots):
    """Guard: the person who answers holds the thing."""
    return uniform(("yes",)) if state.get("holder", slots["thing"]) == slots["who"] else None


@chooser
def holder(world, state, slots):
    """Whoever holds the thing, if it is a third person."""
    return None if mine(world, state, slots) else settled(state, "holder", slots["thing"])


@chooser
def unknown(world, state, slots):
    """Guard: the story has not mentioned the thing."""
    return None if slots["thing"] in state.facts.get("colour", {}) else uniform(("yes",))


@chooser
def amount(world, state, slots):
    return AMOUNT


AMOUNT = Step({"one": 0.5, "two": 0.3, "three": 0.2})


@chooser
def fresh(world, state, slots):
    """What is picked: mostly more of what one already has. At most nine of a kind."""
    counts = {f: state.get(f, slots["who"]) or 0 for f in world.fruits}
    options = tuple(f for f, n in counts.items() if n <= 6)
    step = favour(options, tuple(f for f in options if counts[f]), 0.75)
    return _in_number(step, slots)


@chooser
def edible(world, state, slots):
    """What is eaten: as much as one has, one or two of a kind."""
    counts = {f: state.get(f, slots["who"]) or 0 for f in world.fruits}
    needed = words_to_number(slots.get("n", "one"))
    return _in_number(uniform(tuple(f for f, n in counts.items() if n >= needed)), slots)


@chooser
def bite(world, state, slots):
    most = max(state.get(f, slots["who"]) or 0 for f in world.fruits)
    return favour(("one", "two"), ("one",), 0.7) if most > 1 else uniform(("one",))


def _in_number(step: Step | None, slots) -> Step | None:
    """Put plurals into the singular after "one"."""
    if step is None or slots.get("n") != "one":
        return step
    return Step({words.FRUITS[f][0]: p for f, p in step.probs.items()})


@chooser
def owned(world, state, slots):
    fruits = tuple(f for f in world.fruits if state.get(f, slots["who"]))
    if len(fruits) != 1:
        return uniform(fruits)
    return Step({fruits[0]: 1.0}, "thing", state.source(fruits[0], slots["who"]))


@chooser
def countable(world, state, slots):
    """A fruit to ask about: mostly one that the other person has."""
    has = tuple(f for f in world.fruits if state.get(f, slots["other"]))
    return favour(world.fruits, has, 0.75)


@chooser
def total(world, state, slots):
    """How many there are by now: the sum over the story."""
    n = state.get(slots["fruit"], slots["who"])
    return Step({NUMBERS[n]: 1.0}, "count", state.source(slots["fruit"], slots["who"])) if n else None


@chooser
def none(world, state, slots):
    return None if state.get(slots["fruit"], slots["who"]) else uniform(("yes",))


@chooser
def feeling(world, state, slots):
    """Good feelings after good luck (0.9), bad ones after bad luck (0.9), else even."""
    return favour(
        world.feelings, world.feelings[: len(world.feelings) // 2], 0.5 + 0.4 * _luck(state, slots.get("who"))
    )


@chooser
def act(world, state, slots):
    return favour(world.acts, world.acts[: len(world.acts) // 2], 0.5 + 0.4 * _luck(state, slots["who"]))


@chooser
def group_act(world, state, slots):
    return uniform(world.group_acts)


@chooser
def tone(world, state, slots):
    """The story's last word on the day: how it went for all."""
    return TONES[_luck(state, None)]


TONES = {
    +1: Step({"good": 0.7, "quiet": 0.2, "bad": 0.1}),
    0: Step({"good": 0.3, "quiet": 0.4, "bad": 0.3}),
    -1: Step({"good": 0.1, "quiet": 0.2, "bad": 0.7}),
}


def _luck(state: State, person: str | None) -> int:
    """+1, 0 or -1: the person's last stroke of luck, or the sign of everybody's sum."""
    if person:
        return {"up": 1, "down": -1, None: 0}[state.get("luck", person)]
    lucks = sum(_luck(state, name) for name in state.cast)
    return (lucks > 0) - (lucks < 0)


@chooser
def agree(world, state, slots):
    """is or are, as the noun at the head of the sentence asks."""
    return Step({"are" if slots["scene"] in words.SCENES else "is": 1.0}, "agreement", state.at["scene"])


for _name in ("time", "job", "town", "colour", "scene", "quality"):
    CHOOSERS[_name] = lambda world, state, slots, _name=_name: uniform(getattr(world, _name + "s"))


@chooser
def beyond(world, state, slots):
    """A second landmark, other than the first."""
    first = slots["landmark"]
    return uniform(tuple(l for l in world.landmarks if l.rstrip("s") != first.rstrip("s")))


CHOOSERS["landmark"] = lambda world, state, slots: uniform(world.landmarks)

NUMBERS = tuple(words.NUMBERS)


def words_to_number(word: str) -> int:
    return NUMBERS.index(word)


# ------------------------------------------------------------------------------------------------ templates


@dataclass(frozen=True)
class Template:
    """One kind of sentence, in both languages, with what it needs and what it settles."""

    kind: str
    weight: float  # against the other sentences that could follow the same words
    items: tuple[str | tuple[str, str], ...]  # a word, or a slot as (name, chooser)
    chinese: tuple[tuple[str, str], ...]  # (word or slot, what it is aligned with)
    effects: tuple[tuple[str, str, str, str], ...]  # (subject, relation, operator, value)
    when: str  # a chooser that must find something; "" for none
    stage: str  # the stage of the story in which it is said
    next: str  # the stage that it leads to


def template(kind, weight, english, chinese, effects="", when="", stage="main", then="main") -> Template:
    """Read one row of the table below."""
    items = tuple(_item(word) for word in english.split())
    return Template(kind, weight, items, _chinese(chinese), _effects(effects), when, stage, then)


def _item(word: str) -> str | tuple[str, str]:
    match = re.fullmatch(r"\{(\w+)=?(\w*)\}", word)
    return (match[1], match[2] or match[1]) if match else word


def _chinese(text: str) -> tuple[tuple[str, str], ...]:
    """`留:leaves` is 留 aligned with "leaves"; a slot is aligned with itself, punctuation with its like."""
    pairs = []
    for word in text.split():
        word, _, partner = word.partition(":")
        pairs.append(
            (word, partner or word.strip("{}").split(".")[0] if "{" in word else partner or PUNCTUATION.get(word, ""))
        )
    return tuple(pairs)


PUNCTUATION = {"。": ".", "？": "?", "，": ",", "：": ":"}


def _effects(text: str) -> tuple[tuple[str, str, str, str], ...]:
    return tuple(re.fullmatch(r"(\w+)\.(\w+)(\+=|-=|=)(\S+)", part).groups() for part in text.split())


T = template
EVENTS: tuple[Template, ...] = (
    # How a story opens: the day, then each of the cast.
    T("day", 1, "it is {day} {time} .", "这:it 是:is {day} 的 {time} 。", "story.day=day", stage="day", then="meet"),
    T("meet", 1, "the {job} {who=newcomer} is in the {place=work} .", "{job} {who} 在:in {place} 里 。",
      "who.name=who who.job=job who.place=place", stage="meet", then="meet"),
    # Going about.
    *(T("go", 0.3, f"{{who}} {verb} to the {{place=elsewhere}} .",
        f"{{who}} {chinese} 了 {{place}} 。", "who.place=place")
      for verb, chinese in (("goes", "去:goes"), ("walks", "走:walks 到:to"), ("runs", "跑:runs 到:to"))),
    T("travel", 0.3, "{who} travels to {town} .",
      "{who} 去:travels {town} 旅行:travels 。", "who.place=town", when="town"),
    # Things: bought, left somewhere, given, looked for.
    T("get", 0.8, "{who} buys a {colour} {thing=new} .", "{who} 买:buys 了 一:a {thing.m} {colour} 的 {thing} 。",
      "thing.colour=colour thing.holder=who", when="new"),
    T("leave", 4.0, "{who} leaves a {colour} {thing=new} in the {place=home} .",
      "{who} 在:in {place} 里 留下:leaves 了 一:a {thing.m} {colour} 的 {thing} 。",
      "thing.colour=colour thing.place=place who.place=place", when="new"),
    T("leave", 4.0, "{who} leaves the {thing=held} in the {place=home} .",
      "{who} 把 {thing} 留:leaves 在:in 了 {place} 里 。",
      "thing.place=place who.place=place thing.holder=-", when="held"),
    T("give", 1.5, "{who} gives the {thing=held} to {other} .", "{who} 把 {thing} 给:gives 了 {other} 。",
      "thing.holder=other other.luck=up", when="held"),
    T("look", 6.0, "{who} looks for the {thing=lost} and finds it in the {place=kept} .",
      "{who} 找:looks {thing} ， 在:in {place} 里 找到:finds 了 它:it 。",
      "thing.holder=who thing.place=- who.place=place who.luck=up", when="lost"),
    T("see", 6, "{who} sees the {thing=lost} in the {place=kept} .", "{who} 看见:sees {thing} 在:in {place} 里 。",
      "who.place=place", when="lost"),
    T("guess", 2, "{who} looks for the {thing=lost} in the {place=guess} .",
      "{who} 在:in {place} 里 找:looks {thing} 。",
      "who.place=place", when="lost", then="search"),
    T("hit", 1, "it is there .", "它:it 就 在:is 那里:there 。", "thing.holder=who thing.place=- who.luck=up",
      when="hit", stage="search"),
    T("miss", 1, "it is not there .",
      "它:it 不:not 在:is 那里:there 。", "who.luck=down", when="miss", stage="search"),
    # Counting.
    T("pick", 1.3, "{who} picks {n=amount} {fruit=fresh} .",
      "{who} 采摘:picks 了 {n} {fruit.m} {fruit} 。", "who.fruit+=n",
      when="fresh"),
    T("eat", 0.6, "{who} eats {n=bite} {fruit=edible} .", "{who} 吃:eats 了 {n} {fruit.m} {fruit} 。", "who.fruit-=n",
      when="edible"),
    T("count", 1.5, "{who} counts {poss} {fruit=owned} : {n=total} .",
      "{who} 数:counts 了 数 {poss} 的 {fruit} ： {n} {fruit.m} 。", when="owned"),
    # Feelings.
    T("feel", 0.8, "{who} is {feeling} .", "{who} 很:is {feeling} 。", "who.feeling=feeling"),
    T("act", 0.5, "{who} {act} .", "{who} {act} 。"),
    # Everybody at once: the verb is plural.
    T("go", 1, "they go to the {place} .", "{they} 去:go 了 {place} 。", "they.place=place"),
    T("feel", 1, "they are {feeling} .", "{they} 很:are {feeling} 。", "they.feeling=feeling"),
    T("act", 1, "they {act=group_act} .", "{they} {act} 。"),
    # Scenery: nothing happens, but the verb agrees with a noun six words back.
    T("scene", 1, "the {scene} near the {landmark} behind the {landmark2=beyond} {is=agree} {quality} .",
      "{landmark2} 后面:behind 的 {landmark} 旁边:near 的 那:the {scene.m} {scene} 很:is {quality} 。"),
    T("then", 1, "then", "然后:then"),
    T("later", 1, "later", "后来:later"),
    # Dialogue: a question sets the stage for its answer.
    T("ask_place", 2, "{who} asks {other} : where is the {thing=asked} ?",
      "{who} 问:asks {other} ： {thing} 在:is 哪里:where ？",
      when="asked", then="ask_place"),
    T("say_place", 1, "{who=speaker} says : it is in the {place=kept} .",
      "{who} 说:says ： 它:it 在:in {place} 里 。",
      when="kept", stage="ask_place"),
    T("say_mine", 1, "{who=speaker} says : I have it .",
      "{who} 说:says ： 它:it 在 我:I 这里:have 。", when="mine", stage="ask_place"),
    T("say_holder", 1, "{who=speaker} says : {holder} has it .", "{who} 说:says ： 它:it 在 {holder} 那里:has 。",
      when="holder", stage="ask_place"),
    T("say_unknown", 0.7, "{who=speaker} says : I do not know .", "{who} 说:says ： 我:I 不:not 知道:know 。",
      when="unknown", stage="ask_place"),
    T("say_maybe", 0.3, "{who=speaker} says : maybe in the {place=home} .",
      "{who} 说:says ： 也许:maybe 在:in {place} 里 。",
      when="unknown", stage="ask_place"),
    T("ask_count", 0.5, "{who} asks {other} : how many {fruit=countable} do you have ?",
      "{who} 问:asks {other} ： 你:you 有:have 几:how {fruit.m} {fruit} ？", then="ask_count"),
    T("say_count", 1, "{who=speaker} says : I have {n=total} .", "{who} 说:says ： 我:I 有:have {n} {fruit.m} 。",
      when="total", stage="ask_count"),
    T("say_none", 1, "{who=speaker} says : I have none .",
      "{who} 说:says ： 我:I 没有:none 。", when="none", stage="ask_count"),
    T("ask_day", 0.25, "{who} asks {other} : what day is it ?",
      "{who} 问:asks {other} ： 今天:it 是:is 星期:day 几:what ？",
      then="ask_day"),
    T("say_day", 1, "{who=speaker} says : it is {day} .", "{who} 说:says ： 今天:it 是:is {day} 。", stage="ask_day"),
    T("ask_colour", 0.5, "{who} asks {other} : what colour is the {thing=mentioned} ?",
      "{who} 问:asks {other} ： {thing} 是:is 什么:what 颜色:colour 的 ？", when="mentioned", then="ask_colour"),
    T("say_colour", 1, "{who=speaker} says : it is {colour=shade} .", "{who} 说:says ： 它:it 是:is {colour} 的 。",
      stage="ask_colour"),
    T("request", 0.6, "{who} asks {other} : please give me the {thing=theirs} .",
      "{who} 对 {other} 说:asks ： 请:please 把 {thing} 给:give 我:me 。", when="theirs", then="request"),
    T("grant", 0.7, "{who=speaker} says : here you are .", "{who} 说:says ： 给:here 你:you 。",
      "thing.holder=other other.luck=up", stage="request", then="thank"),
    T("refuse", 0.3, "{who=speaker} says : sorry , I need it .",
      "{who} 说:says ： 对不起:sorry ， 我:I 需要:need 它:it 。",
      "other.luck=down", stage="request"),
    T("thank", 1, "{who=speaker} says : thank you .", "{who} 说:says ： 谢谢:thank 你:you 。", stage="thank"),
    T("invite", 0.35, "{who} asks {other} : will you come to the {place} with me ?",
      "{who} 问:asks {other} ： 你:you 和:with 我:me 一起 去:come {place} 吗 ？", then="invite"),
    T("accept", 0.7, "{who=speaker} says : yes , let us go .", "{who} 说:says ： 好:yes ， 我们:us 走:go 吧:let 。",
      "who.place=place other.place=place", stage="invite"),
    T("decline", 0.3, "{who=speaker} says : no , I am tired .", "{who} 说:says ： 不:no ， 我:I 累:tired 了 。",
      "who.feeling=tired other.luck=down", stage="invite"),
    # The end.
    T("end", 1, "that was a {tone} {day} . <eos>", "那:that 是:was 一:a 个 {tone} 的 {day} 。", then="over"),
)  # fmt: skip

# What a sentence opens with, and how often. A word, or the slot of a single subject.
OPENERS = {("who", "who"): 0.72, "they": 0.08, "the": 0.1, "then": 0.05, "later": 0.05}
