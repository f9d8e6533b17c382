"""Labels of a ToyWorld story, one function per task. All of them are read off the story's events and facts."""

from __future__ import annotations

from dataclasses import dataclass

from llmbook.toyworld import words
from llmbook.toyworld.state import NUMBERS, Event, Fact

PEOPLE = ("who", "other", "holder")
IMPORTANCE = {
    "give": 9,
    "look": 8,
    "travel": 7,
    "leave": 6,
    "get": 5,
    "pick": 4,
    "eat": 3,
    "see": 2,
    "go": 2,
    "feel": 1,
}


# ---------------------------------------------------------------------------------------------- summarising


def retell(story, event: Event) -> list[str]:
    """The event's sentence with names in the place of pronouns."""
    tokens = []
    for item in event.template.items:
        if isinstance(item, tuple):
            name = item[0]
            item = event.slots[name] if name in PEOPLE else story.tokens[event.at[name]]
        tokens.append(item)
    return [token for token in tokens if token != "<eos>"]


def summary(story) -> list[str]:
    """The two most important events, in their order, and how the day was."""
    ranked = sorted((e for e in story.events if e.kind in IMPORTANCE), key=lambda e: -IMPORTANCE[e.kind])
    chosen = sorted(ranked[:2], key=lambda e: e.start) + [e for e in story.events if e.kind == "end"]
    return [token for event in chosen for token in retell(story, event)]


# -------------------------------------------------------------------------------------- questions, knowledge


@dataclass(frozen=True)
class Question:
    """A question on how things stand at the end, its answer, the event and the token that support it."""

    question: str
    answer: str
    event: int
    token: int


def questions(story) -> list[Question]:
    """Everything that can be asked about the final state."""
    return [
        Question(text.format(the(subject)), _spell(fact.value), fact.event, fact.source)
        for relation, facts in story.state.facts.items()
        for subject, fact in facts.items()
        if (text := _wording(relation))
    ]


def _wording(relation: str) -> str | None:
    if relation in words.FRUITS:
        return f"how many {relation} does {{}} have ?"
    return {
        "day": "what day is it ?",
        "place": "where is {} ?",
        "holder": "who has {} ?",
        "colour": "what colour is {} ?",
        "job": "what is the job of {} ?",
        "feeling": "how does {} feel ?",
    }.get(relation)


def the(subject: str) -> str:
    return f"the {subject}" if subject in words.THINGS else subject


def _spell(value: str | int) -> str:
    return NUMBERS[value] if isinstance(value, int) else value


@dataclass(frozen=True)
class Relation:
    """One edge of the story's knowledge graph, and the event that drew it."""

    subject: str
    relation: str
    object: str
    event: int


def relations(story) -> list[Relation]:
    """The knowledge graph at the end of the story."""
    triples = [
        _triple(relation, subject, fact)
        for relation, facts in story.state.facts.items()
        for subject, fact in facts.items()
    ]
    return [triple for triple in triples if triple]


def _triple(relation: str, subject: str, fact: Fact) -> Relation | None:
    if relation == "holder":
        return Relation(fact.value, "has", subject, fact.event)
    if relation in words.FRUITS:
        return Relation(subject, f"number_of_{relation}", _spell(fact.value), fact.event)
    name = {"day": "day", "place": "is_in", "colour": "has_colour", "job": "works_as", "feeling": "feels"}.get(relation)
    return Relation(subject, name, fact.value, fact.event) if name else None


# ------------------------------------------------------------------------------- entities, sentiment, dialogue


@dataclass(frozen=True)
class Entity:
    """A span of tokens, tokens[start:end], and its type."""

    start: int
    end: int
    type: str
    text: str


TYPES = {
    "who": "PERSON", "other": "PERSON", "holder": "PERSON", "job": "JOB", "place": "PLACE", "town": "TOWN",
    "thing": "THING", "day": "DATE", "fruit": "QUANTITY",
}  # fmt: skip
MODIFIERS = {"thing": "colour", "fruit": "n", "day": "time"}  # red ball, two apples, Monday morning: one span


def entities(story) -> list[Entity]:
    """Named things in the text, in order. Pronouns are not named."""
    found = []
    for event in story.events:
        items = event.template.items
        for i, item in enumerate(items):
            name = item[0] if isinstance(item, tuple) else ""
            if name not in TYPES or (name in PEOPLE and story.tokens[event.at[name]] != event.slots[name]):
                continue
            span = [event.at[name]] + [
                event.at[n[0]] for n in items[max(0, i - 1) : i + 2] if n[0] == MODIFIERS.get(name)
            ]
            start, end = min(span), max(span) + 1
            found.append(Entity(start, end, TYPES[name], " ".join(story.tokens[start:end])))
    return sorted(found, key=lambda entity: entity.start)


GOOD = {*words.FEELINGS_GOOD, *words.ACTS_GOOD, *(row[0] for row in words.ACTS_GOOD.values())}


def sentiment(story) -> dict[str, str]:
    """Person -> "positive", "negative" or "neutral": the last feeling that was told or shown, if any."""
    moods = dict.fromkeys(story.state.cast, "neutral")
    for event in story.events:
        sign = event.slots.get("feeling") or event.slots.get("act") if event.kind in ("feel", "act") else None
        if event.kind == "decline":
            sign = "tired"
        if sign:
            people = [event.slots["who"]] if "who" in event.slots else story.state.cast
            moods |= dict.fromkeys(people, "positive" if sign in GOOD else "negative")
    return moods


@dataclass(frozen=True)
class Turn:
    """What one person says to another: tokens[start:end], the dialogue act and its slots."""

    speaker: str
    listener: str
    act: str
    slots: dict[str, str]
    start: int
    end: int
    event: int
    answers: int | None  # index of the turn that this one answers


def dialogue(story) -> list[Turn]:
    """All turns of all conversations, in order."""
    turns: list[Turn] = []
    for number, event in enumerate(story.events):
        if "other" not in event.slots or ":" not in event.at:
            continue
        slots = {name: value for name, value in event.slots.items() if name not in ("who", "other")}
        answers = None if event.template.stage == "main" else len(turns) - 1
        who, other = event.slots["who"], event.slots["other"]
        turns.append(Turn(who, other, event.kind, slots, event.at[":"] + 1, event.end, number, answers))
    return turns


# ----------------------------------------------------------------------------------------------- translation


@dataclass(frozen=True)
class Chinese:
    """The same events in Chinese: segmented words, and pairs (English index, Chinese index) that correspond."""

    tokens: list[str]
    alignment: list[tuple[int, int]]

    @property
    def text(self) -> str:
        return "".join(self.tokens)


def chinese(story) -> Chinese:
    """Render every event by its Chinese template."""
    tokens: list[str] = []
    alignment: list[tuple[int, int]] = []
    for event in story.events:
        for item, partner in event.template.chinese:
            index = event.at.get(partner, -1)
            for word in _translate(item, event, story).split("_"):
                if index >= event.start:
                    alignment.append((index, len(tokens)))
                tokens.append(word)
    return Chinese(tokens, sorted(alignment))


def _translate(item: str, event: Event, story) -> str:
    """A word stands for itself; a slot is looked up by what it means there (Jordan is a person or a land)."""
    if not item.startswith("{"):
        return item
    name, _, attribute = item.strip("{}").partition(".")
    if name == "they":
        return "她们" if all(story.state.get("gender", p) == "she" for p in story.state.cast) else "他们"
    value = event.slots[name]
    if attribute == "m":
        return MEASURES[value]
    if name in ("who", "poss") and event.at[name] >= event.start:
        value = story.tokens[event.at[name]]  # a pronoun stays a pronoun
    return LEXICON["town" if name == "town" else "word"][value]


def _lexicon() -> dict[str, str]:
    """English word -> Chinese, for every table but the towns."""
    simple = (words.DAYS, words.TIMES, words.NAMES_SHE, words.NAMES_HE, words.NAMES_OPEN, words.JOBS, words.PLACES,
              words.COLOURS, words.THINGS, words.NUMBERS, words.FEELINGS_GOOD, words.FEELINGS_BAD, words.TONES,
              words.QUALITIES)  # fmt: skip
    paired = (words.FRUITS, words.SCENES, words.LANDMARKS, words.ACTS_GOOD, words.ACTS_BAD)
    lexicon = {word: row[0] for table in simple for word, row in table.items()}
    lexicon |= {word: row[1] for table in paired for first, row in table.items() for word in (first, row[0])}
    return lexicon | {"she": "她", "he": "他", "her": "她", "his": "他"}


LEXICON = {"word": _lexicon(), "town": {town: row[0] for town, row in words.TOWNS.items()}}
# 一 把 钥匙, 三 颗 樱桃, 那 只 鸟; plural scenery takes 些 (those).
MEASURES = {thing: row[1] for thing, row in words.THINGS.items()} | {
    form: "些" if form == plural and table is words.SCENES else row[2]
    for table in (words.FRUITS, words.SCENES)
    for plural, row in table.items()
    for form in (plural, row[0])
}
