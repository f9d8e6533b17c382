"""Texts of a given form: a grammar says which characters may come next, and a mask says which tokens.

The grammars are LL(1): one character decides which rule applies. A state is the stack of symbols still to come,
so "may this token come next?" means "do its characters lead from this state to another?".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

State = tuple[str, ...]  # symbols still to come, the next one last
Rule = tuple[str, str]  # (characters, or "^" and those excluded; symbols that replace the symbol, divided by spaces)


class Grammar:
    """Rules by symbol; one in ``optional`` may be left out. A symbol without rules stands for itself, letter by letter.

    Raises ValueError where two rules of a symbol begin with the same character.
    """

    def __init__(self, rules: Mapping[str, Sequence[Rule]], optional: Iterable[str] = (), start: str = "value") -> None:
        self.rules, self.optional, self.start = dict(rules), frozenset(optional), (start,)
        if start not in self.rules:
            raise ValueError(f"start must be one of the rules' symbols {sorted(self.rules)}, got {start!r}")
        for symbol, choices in self.rules.items():
            plain = "".join(characters for characters, _ in choices if not characters.startswith("^"))
            if len(set(plain)) < len(plain):
                raise ValueError(f"rules of {symbol!r} must begin with different characters, got {plain!r}")

    def step(self, state: State, character: str) -> State | None:
        """The state after one more character; None where it cannot come."""
        while state:
            *rest, symbol = state
            if symbol not in self.rules:
                left = (symbol[1:],) if len(symbol) > 1 else ()
                return (*rest, *left) if symbol[0] == character else None
            for characters, then in self.rules[symbol]:
                if _is_in(character, characters):
                    return (*rest, *reversed(then.split()))
            if symbol not in self.optional:
                return None
            state = tuple(rest)
        return None

    def after(self, text: str, state: State | None = None) -> State | None:
        """The state after a text; None where it breaks the grammar."""
        state = self.start if state is None else state
        for character in text:
            if state is None:
                return None
            state = self.step(state, character)
        return state

    def is_complete(self, state: State) -> bool:
        """Whether the text may end here."""
        return all(symbol in self.optional for symbol in state)


def _is_in(character: str, characters: str) -> bool:
    if characters.startswith("^"):
        return character not in characters[1:] and character >= " "
    return character in characters


_DIGITS = "0123456789"
_VALUE = [
    ("{", "first-member"),
    ("[", "first-element"),
    ('"', "characters"),
    ("-", "integer"),
    ("0", "fraction exponent"),
    ("123456789", "digits fraction exponent"),
    ("t", "rue"),
    ("f", "alse"),
    ("n", "ull"),
]
_MEMBER = ('"', "characters : blank value more-members")
JSON = Grammar(  # RFC 8259; of white space one blank behind a comma or a colon, or a model may write blanks for ever
    {
        "value": _VALUE,
        "blank": [(" ", "")],
        "first-member": [("}", ""), _MEMBER],
        "more-members": [("}", ""), (",", "blank member")],
        "member": [_MEMBER],
        "first-element": [("]", ""), *((first, f"{then} more-elements") for first, then in _VALUE)],
        "more-elements": [("]", ""), (",", "blank value more-elements")],
        "characters": [('"', ""), ("\\", "escaped characters"), ('^"\\', "characters")],
        "escaped": [('"\\/bfnrt', ""), ("u", "hex hex hex hex")],
        "hex": [(_DIGITS + "abcdefABCDEF", "")],
        "integer": [("0", "fraction exponent"), ("123456789", "digits fraction exponent")],
        "digits": [(_DIGITS, "digits")],
        "fraction": [(".", "digit digits")],
        "digit": [(_DIGITS, "")],
        "exponent": [("eE", "sign digit digits")],
        "sign": [("+-", "")],
    },
    optional=("blank", "digits", "fraction", "exponent", "sign"),
)


class GrammarMask:
    """A processor that leaves only tokens with which the new text stays the beginning of one in the grammar.

    ``texts`` has each token's text, or None for one that may not come (half a character, a control token). The end
    ``eos_token_id`` may come where the text is complete. New text begins behind ``prompt_length`` ids.
    """

    def __init__(self, grammar: Grammar, texts: Sequence[str | None], eos_token_id: int, prompt_length: int) -> None:
        self.grammar, self.eos, self.prompt_length, self.size = grammar, eos_token_id, prompt_length, len(texts)
        self.tree: dict = {}
        self.texts = texts
        for token, text in enumerate(texts):
            if text and token != eos_token_id:
                node = self.tree
                for character in text:
                    node = node.setdefault(character, {})
                node.setdefault("", []).append(token)
        self.masks: dict[State, Tensor] = {}
        self.states: dict[tuple[int, ...], State] = {(): grammar.start}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        masks = [self._mask(self._state(tuple(ids[self.prompt_length :].tolist()))) for ids in input_ids]
        return scores + torch.stack(masks).to(scores)

    def _state(self, ids: tuple[int, ...]) -> State:
        if ids not in self.states:
            before, token = self._state(ids[:-1]), ids[-1]
            after = self.grammar.after(self.texts[token] or "", before) if token != self.eos else ()
            if after is None:
                raise ValueError(f"input_ids break the grammar with token {token}, {self.texts[token]!r}")
            self.states[ids] = after
        return self.states[ids]

    def _mask(self, state: State) -> Tensor:
        """0 for tokens that may come, −∞ for the others (V,); computed once for each state."""
        if state not in self.masks:
            mask = torch.full((self.size,), -math.inf)
            mask[self._allowed(state)] = 0.0
            if self.grammar.is_complete(state):
                mask[self.eos] = 0.0
            self.masks[state] = mask
        return self.masks[state]

    def _allowed(self, state: State) -> list[int]:
        """Tokens whose characters the grammar takes from here: down the tree of all tokens, where it goes on."""
        allowed: list[int] = []
        waiting = [(state, self.tree)]
        while waiting:
            here, node = waiting.pop()
            for character, below in node.items():
                if character == "":
                    allowed += below
                elif (after := self.grammar.step(here, character)) is not None:
                    waiting.append((after, below))
        return allowed
