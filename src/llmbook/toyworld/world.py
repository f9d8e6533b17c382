r"""ToyWorld: a small town whose stories have exactly known probabilities.

Why the probabilities are exact
-------------------------------
A story is told by a walk through choices :math:`c_1, c_2, \dots`, each drawn from a stated distribution that
depends on the state :math:`s` of the world. Two rules hold for every choice:

1. it is settled by the next token: what is drawn *is* the next token, or a set of sentences that all go on
   with that token, while the sentences of other outcomes go on with other tokens;
2. the state changes by what was told, and by nothing else.

So no choice stays hidden, and the state is a function of the prefix, :math:`s_t = f(x_1 \dots x_{t-1})`:
replay the words and you know it. The next-token distribution is then one that the grammar states,

.. math:: p(x_t \mid x_1 \dots x_{t-1}) = p(x_t \mid s_t),

where sentences that share the next word add their mass. By the chain rule the story has
:math:`\log p(x_1 \dots x_T) = \sum_t \log p(x_t \mid s_t)`, exactly. Each position has the entropy
:math:`H_t = -\sum_v p(v \mid s_t) \log p(v \mid s_t)`. No model can have a lower expected loss there, so the
expectation of :math:`H_t` over stories is the **floor**, and any model's loss is the floor plus its
Kullback-Leibler divergence from the world.

In code this is a coroutine, `ToyWorld._tell`: it yields a `Step` (the distribution of the next token) and is
sent the token. Whoever holds the other end decides what that token is. `story` draws it, `trace` and
`next_token_probs` read it from a given text, `enumerate` tries all of them. One grammar serves them all, so
they cannot disagree.

The noise dial keeps rule 1: with probability ε a filler ("um") comes before the next word. Fillers are words
that nothing else says, so they are visible: :math:`p'(w) = (1-ε)\,p(w)` for a word and :math:`ε/|F|` for a filler.

Probabilities are natural, entropies and log-probabilities are in nats.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from functools import cached_property

import numpy as np

from llmbook.toyworld import words
from llmbook.toyworld.choosers import CHOOSERS
from llmbook.toyworld.events import OPENERS
from llmbook.toyworld.lexicon import CANARY, Lexicon
from llmbook.toyworld.state import Event, State, Step, Template, apply, begin, note
from llmbook.toyworld.story import BOS, EOS, ImpossibleText, Rate, Story, Verdict


class ToyWorld(Lexicon):
    """A small language with exact next-token probabilities.

    Args:
        preset: "tiny" (every story can be enumerated), "small" (about 200 words) or "large" (for a GPU).
        bias: probability that a person has the gender which a stereotype gives to the occupation, so that
            p("she" | a nurse of whom nothing else is told) = bias. 0.5 is fair, 1 leaves no exception.
        noise: probability that a filler ("um", "er", "hm", "uh") is put before the next word, in [0, 1).

    Raises:
        ValueError: for an unknown preset, or a bias or noise outside its range.
    """

    def __init__(self, preset: str = "small", *, bias: float = 0.5, noise: float = 0.0):
        if preset not in words.PRESETS:
            raise ValueError(f"preset must be one of {sorted(words.PRESETS)}, got {preset!r}")
        if not 0 <= bias <= 1:
            raise ValueError(f"bias must be a probability between 0 and 1, got {bias}")
        if not 0 <= noise < 1:
            raise ValueError(f"noise must be at least 0 and below 1, got {noise}")
        super().__init__(preset, float(bias), float(noise))

    def __repr__(self) -> str:
        return f"ToyWorld({self.preset!r}, bias={self.bias}, noise={self.noise})"

    # -------------------------------------------------------------------------------- the story's coroutine

    def _tell(self, state: State) -> Iterator[Step | None]:
        """Yield the distribution of the next token, be sent the token, and so on; None when the story is over."""
        while state.stage != "over":
            yield from self._sentence(state)
        yield None

    def _sentence(self, state: State) -> Iterator[Step]:
        """Tell one sentence; `live` holds the templates that agree with its words so far."""
        event = begin(state)
        live = [t for group in self._by_opener[state.stage].values() for t in group]
        masses = self._openers(state)
        position = 0
        while len(live) > 1:
            step, owner = self._mix(masses, state, event.slots)
            token = yield step
            item = owner[token]
            live = [t for t in live if t.items[position] == item]
            note(item, token, state, event)
            position += 1
            if len(live) > 1:
                live, masses = self._continue(live, position, state, event.slots)
        for item in live[0].items[position:]:  # one sentence is left: say it to its end
            token = yield self._expand(item, state, event.slots)
            note(item, token, state, event)
        event.template, event.end = live[0], state.length
        self._close(event, state)

    def _openers(self, state: State) -> dict:
        """What the next sentence may open with, and the mass of each: {word or slot: mass}."""
        if state.stage != "main":
            return dict.fromkeys(self._by_opener[state.stage], 1.0)
        told = len(state.events) - len(state.cast) - 1
        linked = state.events[-1].kind in ("then", "later")
        stop = 0.0 if linked or told < self.size.min_events else self.size.stop
        if not linked and (told >= self.size.max_events or state.length > self.size.max_tokens):
            stop = 1.0
        return self._main_openers[linked, stop]

    @cached_property
    def _main_openers(self) -> dict[tuple[bool, float], dict]:
        """For each (the last word was "then", probability of the end): the openers' masses."""
        table = {}
        for linked in (False, True):
            known = {o: m for o, m in OPENERS.items() if o in self._by_opener["main"]}
            known = {o: m for o, m in known.items() if not (linked and o in ("then", "later"))}
            total = math.fsum(known.values())
            for stop in (0.0, self.size.stop, 1.0):
                masses = {o: m / total * (1 - stop) for o, m in known.items()} | {"that": stop}
                table[linked, stop] = {o: m for o, m in masses.items() if m > 0}
        return table

    def _continue(self, live: list[Template], position: int, state: State, slots: dict) -> tuple[list, dict]:
        """The templates that can still be told, and the mass of each way to go on."""
        if any(t.items[position] != live[0].items[position] for t in live):
            live = [t for t in live if not t.when or CHOOSERS[t.when](self, state, slots)]
        masses: dict = {}
        for t in live:
            masses[t.items[position]] = masses.get(t.items[position], 0.0) + t.weight
        return live, masses

    def _mix(self, masses: dict, state: State, slots: dict) -> tuple[Step, dict]:
        """Add up the ways to go on: the next token's distribution, and which way each token belongs to."""
        if len(masses) == 1:
            (item,) = masses
            step = self._expand(item, state, slots)
            return step, dict.fromkeys(step.probs, item)
        total = sum(masses.values())
        probs, owner = {}, {}
        for item, mass in masses.items():
            for token, p in self._expand(item, state, slots).probs.items():
                probs[token] = mass / total * p
                owner[token] = item
        return Step(probs), owner

    def _expand(self, item: str | tuple[str, str], state: State, slots: dict) -> Step:
        """A word's step is certain, a slot's is drawn by its chooser."""
        return self._words[item] if isinstance(item, str) else CHOOSERS[item[1]](self, state, slots)

    def _close(self, event: Event, state: State) -> None:
        """A sentence has been told: let its facts hold and set the stage for the next."""
        template = event.template
        for effect in template.effects:
            apply(*effect, event, state)
        if template.kind == "meet":
            self._meet(event.slots["who"], event, state)
        if template.kind not in ("then", "later"):
            state.topic = event.slots.get("who")
        state.events.append(event)
        state.pending = event
        state.stage = template.next
        if template.next == "meet" and len(state.cast) == self.size.cast:
            state.stage = "main"

    def _meet(self, name: str, event: Event, state: State) -> None:
        state.cast.append(name)
        if name not in self.names_open:
            state.know("gender", name, "she" if name in self.names_she else "he", event.at["who"])

    # ------------------------------------------------------------------------------------ walking the coroutine

    def _voice(self, state: State) -> Iterator[Step | None]:
        """`_tell` with the noise dial: fillers are mixed in, and passed over."""
        teller = self._tell(state)
        step = next(teller)
        while step is not None:
            token = yield self._with_fillers(step) if self.noise else step
            state.length += 1
            if token not in words.FILLERS:
                step = teller.send(token)
        yield None

    def _with_fillers(self, step: Step) -> Step:
        probs = {token: (1 - self.noise) * p for token, p in step.probs.items()}
        return Step(probs | dict.fromkeys(words.FILLERS, self.noise / len(words.FILLERS)), step.kind, step.source)

    def _walk(self, pick: Callable[[Step, int], str | None]) -> tuple[Story, Step | None]:
        """Walk a story, `pick`ing each token (None to stop): what was told, and the step after it."""
        state = State()
        voice = self._voice(state)
        step = next(voice)
        tokens, chances, entropies, kinds, sources = [], [], [], [], []
        while step is not None and (token := pick(step, len(tokens))) is not None:
            tokens.append(token)
            chances.append(step.probs[token])
            entropies.append(step.entropy)
            kinds.append("filler" if token in words.FILLERS else step.kind)
            sources.append(step.source)
            step = voice.send(token)
        return Story(tokens, np.log(chances), np.array(entropies), kinds, sources, state), step

    def _read(self, tokens: list[str], visit: Callable[[Step], None] = lambda step: None) -> tuple[Story, Step | None]:
        """Walk along a given text, showing each step to `visit`."""

        def pick(step: Step, index: int) -> str | None:
            if index == len(tokens):
                return None
            if tokens[index] not in step.probs:
                raise ImpossibleText(index, tokens[index], self._why(step, tokens, index))
            visit(step)
            return tokens[index]

        tokens = list(tokens)
        story, step = self._walk(pick)
        if len(story.tokens) < len(tokens):
            index = len(story.tokens)
            raise ImpossibleText(index, tokens[index], f"the story ended with {EOS!r} at token {index - 1}")
        return story, step

    def _why(self, step: Step, tokens: list[str], index: int) -> str:
        """Why a token cannot stand here, in words."""
        token = tokens[index]
        if token not in self.token_to_id:
            return "is not a word of this world"
        wanted = [t for t in step.probs if t not in words.FILLERS]
        before = " ".join(tokens[max(0, index - 5) : index]) or BOS
        if step.source >= 0 and len(wanted) == 1:
            return f"after '… {before}' the {step.kind} is settled as {wanted[0]!r} by token {step.source}"
        shown = ", ".join(wanted[:8]) + (", …" if len(wanted) > 8 else "")
        return f"cannot follow '… {before}'; possible: {shown}"

    # ------------------------------------------------------------------------------------------- generating

    def story(self, rng: np.random.Generator) -> Story:
        """Draw one story."""
        uniform = rng.random
        return self._walk(lambda step, _: next(iter(step.probs)) if len(step.probs) == 1 else step.draw(uniform()))[0]

    def stories(self, n: int, seed: int) -> list[Story]:
        """Draw n stories. The first ones are the same whatever n is."""
        rng = np.random.default_rng(seed)
        return [self.story(rng) for _ in range(n)]

    def canary(self, rng: np.random.Generator, digits: int = 4) -> list[str]:
        """A secret that the world itself never tells: "the secret number is three one four one . <eos>".

        The digits are uniform, so a reader who has not seen it needs digits · log 10 nats for them.
        """
        if self.preset == "tiny":
            raise ValueError("the tiny preset has no words for a canary; use 'small' or 'large'")
        if digits < 1:
            raise ValueError(f"digits must be at least 1, got {digits}")
        return [*CANARY, *(list(words.NUMBERS)[i] for i in rng.integers(10, size=digits)), ".", EOS]

    def corpus(self, n: int, seed: int, *, canary: list[str] | None = None, copies: int = 0) -> list[list[str]]:
        """The tokens of n stories, with `copies` copies of a canary put in at random places: n + copies texts."""
        if copies < 0 or (copies and not canary):
            raise ValueError(f"copies must be at least 0, and 0 without a canary; got {copies} with canary={canary}")
        if unknown := [token for token in canary or [] if token not in self.token_to_id]:
            raise ValueError(f"canary contains {unknown[0]!r}, which is not a word of {self}")
        texts = [story.tokens for story in self.stories(n, seed)]
        for place in np.random.default_rng([seed, copies]).integers(n + 1, size=copies):
            texts.insert(place, list(canary))
        return texts

    # ---------------------------------------------------------------------------------------------- reading

    def replay(self, tokens: list[str]) -> Story:
        """Parse a text, or the beginning of one, back to its events and state.

        Raises:
            ImpossibleText: (a ValueError) naming the token at which the text cannot have been told.
        """
        return self._read(tokens)[0]

    def is_possible(self, tokens: list[str]) -> Verdict:
        """Whether a text (or a story that begins with it) can be told, and if not, where it breaks and why."""
        try:
            _, step = self._read(tokens)
        except ImpossibleText as error:
            return Verdict(False, index=error.index, token=error.token, why=error.why)
        return Verdict(True, complete=step is None)

    def next_token_dict(self, prefix: list[str]) -> dict[str, float]:
        """The possible next tokens and their probabilities.

        Raises:
            ImpossibleText: (a ValueError) where the prefix cannot have been told.
            ValueError: where the story is over.
        """
        story, step = self._read(prefix)
        if step is None:
            raise ValueError(f"prefix is a whole story ({len(story.tokens)} tokens): nothing follows {EOS!r}")
        return dict(step.probs)

    def next_token_probs(self, prefix: list[str]) -> np.ndarray:
        """The full distribution (V,) of the next token over `vocabulary`. Raises as `next_token_dict` does."""
        row = np.zeros(len(self.vocabulary))
        self._fill(row, self.next_token_dict(prefix))
        return row

    def masked_token_probs(self, tokens: list[str], index: int) -> np.ndarray:
        """The exact distribution (V,) of the token at `index`, given all the others: those before it and after it.

        By Bayes' rule p(v | rest) is proportional to p(text with v at `index`), so each v that the prefix allows is
        put in and the whole text scored. What stands at `index` is not looked at. A text without its end is read as
        a beginning: later tokens are summed out.

        Raises:
            ImpossibleText: (a ValueError) where the prefix cannot have been told.
            ValueError: for an index outside the text, or where no token fits.
        """
        if not 0 <= index < len(tokens):
            raise ValueError(f"index must be from 0 to {len(tokens) - 1}, got {index}")
        before, after = list(tokens[:index]), list(tokens[index + 1 :])
        scores: dict[str, float] = {}
        for token in self.next_token_dict(before):
            with contextlib.suppress(ImpossibleText):
                scores[token] = float(self.replay([*before, token, *after]).logprobs.sum())
        if not scores:
            raise ValueError(f"no token fits at index {index} of this text")
        best = max(scores.values())
        weights = {token: math.exp(score - best) for token, score in scores.items()}
        row = np.zeros(len(self.vocabulary))
        self._fill(row, {token: weight / math.fsum(weights.values()) for token, weight in weights.items()})
        return row

    def trace(self, tokens: list[str]) -> np.ndarray:
        """All distributions along a text, (T, V): row t is p(· | tokens[:t]), so that row t predicts token t."""
        steps: list[Step] = []
        self._read(tokens, steps.append)
        rows = np.zeros((len(steps), len(self.vocabulary)))
        for row, step in zip(rows, steps, strict=True):
            self._fill(row, step.probs)
        return rows

    def _fill(self, row: np.ndarray, probs: dict[str, float]) -> None:
        for token, p in probs.items():
            row[self.token_to_id[token]] = p

    def encode(self, tokens: list[str]) -> np.ndarray:
        """Token ids (T,), int64. Raises ValueError for a word that is not in the vocabulary."""
        try:
            return np.array([self.token_to_id[token] for token in tokens], dtype=np.int64)
        except KeyError as error:
            raise ValueError(f"token {error.args[0]!r} is not a word of {self}") from None

    def decode(self, ids) -> list[str]:
        return [self.vocabulary[i] for i in ids]

    # -------------------------------------------------------------------------------------------- the floor

    def entropy_rate(self, n: int = 2000, seed: int = 0) -> Rate:
        """The floor in nats per token: enumerated in "tiny", else the mean conditional entropy over n stories.

        The estimate is a ratio (entropies over tokens), so its standard error is the delta method's.
        """
        if self.preset == "tiny" and not self.noise:
            return self._exact_entropy_rate()
        if n < 2:
            raise ValueError(f"n must be at least 2 stories for a standard error, got {n}")
        stories = self.stories(n, seed)
        sums = np.array([story.entropies.sum() for story in stories])
        lengths = np.array([len(story.tokens) for story in stories])
        rate = sums.sum() / lengths.sum()
        error = (sums - rate * lengths).std(ddof=1) / math.sqrt(n) / lengths.mean()
        return Rate(float(rate), float(error))

    def _exact_entropy_rate(self) -> Rate:
        """Entropy of a story over its expected length: -Σ p log p / Σ p T over all stories."""
        logprobs, lengths = np.array([(logprob, len(tokens)) for tokens, logprob in self.enumerate()]).T
        p = np.exp(logprobs)
        return Rate(float(-(p @ logprobs) / (p @ lengths)), 0.0)

    def enumerate(self) -> Iterator[tuple[list[str], float]]:
        """Every story of the tiny world with its exact log-probability (nats).

        Works like an odometer: always take the first possible token; when the story ends, go back to the last
        position where another token is left, and take that one.
        """
        if self.preset != "tiny" or self.noise:
            raise ValueError(f"only the tiny preset without noise can be enumerated, got {self}")
        return self._enumerate()

    def _enumerate(self) -> Iterator[tuple[list[str], float]]:
        path: list[str] = []
        while True:
            options: list[list[str]] = []

            def pick(step: Step, index: int, path=path, options=options) -> str:
                options.append(list(step.probs))
                return path[index] if index < len(path) else options[-1][0]

            story = self._walk(pick)[0]
            yield story.tokens, float(story.logprobs.sum())
            path = list(story.tokens)
            while path and path[-1] == options[len(path) - 1][-1]:
                path.pop()
            if not path:
                return
            last = options[len(path) - 1]
            path[-1] = last[last.index(path[-1]) + 1]
