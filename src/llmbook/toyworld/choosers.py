"""Who draws a word: a chooser looks at the state and the slots filled so far and gives a `Step`.

It gives None where nothing fits; then the sentence cannot be said now.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

from llmbook.toyworld import words
from llmbook.toyworld.state import NUMBERS, State, Step, words_to_number

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
