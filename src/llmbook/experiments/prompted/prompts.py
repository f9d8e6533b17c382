"""Ten ways to ask the same question, and two ways to ask for a verdict. None was tuned on an answer.

A prompt is a prefix and the continuations that are compared. Where the continuations are letters, the model chooses
a place; where they are the options' words, it chooses a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmbook.experiments.prompted.questions import Question

Prompt = tuple[str, tuple[str, ...]]  # a prefix, and the continuations to compare
EXAMPLE = Question("example", "Which word means the opposite of hot?", ("red", "cold", "tall", "late"), 1)
HEADER = "The following are multiple choice questions (with answers) about general knowledge."
CAPITALS, SMALL, DIGITS = "ABCD", "abcd", "1234"


@dataclass(frozen=True)
class Format:
    """A way to write a question down; ``letters`` says whether a letter answers or the option's words."""

    name: str
    write: Callable[[Question], Prompt]
    letters: bool = True
    chat: bool = False
    per_character: bool = False  # whether a text's log-probability is divided by its length: the row of `words` serves

    def prompt(self, question: Question, tokenizer: Any) -> Prompt:
        """The prefix, in the chat template where the format has one, and the continuations."""
        prefix, ends = self.write(question)
        return (in_chat(prefix, tokenizer), ends) if self.chat else (prefix, ends)


def in_chat(text: str, tokenizer: Any) -> str:
    """A user's message as the chat model was trained to read it, up to where its answer begins."""
    message = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)


def _lines(question: Question, marks: str, around: str) -> str:
    """The options one a line, each behind its mark: ``around`` is like "{}. "."""
    return "\n".join(around.format(m) + option for m, option in zip(marks, question.options, strict=True))


def _plain(question: Question) -> Prompt:
    return f"Question: {question.text}\n{_lines(question, CAPITALS, '{}. ')}\nAnswer:", _spaced(CAPITALS)


def _small(question: Question) -> Prompt:
    return f"question: {question.text}\n{_lines(question, SMALL, '({}) ')}\nanswer: (", tuple(SMALL)


def _digits(question: Question) -> Prompt:
    return f"Question: {question.text}\n{_lines(question, DIGITS, '{}. ')}\nAnswer: ", tuple(DIGITS)


def _one_line(question: Question) -> Prompt:
    options = ", ".join(f"{m}: {o}" for m, o in zip(CAPITALS, question.options, strict=True))
    return f"Question: {question.text} Options: {options}. Answer:", _spaced(CAPITALS)


def _header(question: Question) -> Prompt:
    return f"{HEADER}\n\n{question.text}\n{_lines(question, CAPITALS, '{}. ')}\nAnswer:", _spaced(CAPITALS)


def _one_shot(question: Question) -> Prompt:
    (shown, ends), (asked, _) = _plain(EXAMPLE), _plain(question)
    return f"{shown}{ends[EXAMPLE.right]}\n\n{asked}", ends


def _instruct(question: Question) -> Prompt:
    asks = f"{question.text}\n{_lines(question, CAPITALS, '{}. ')}\nAnswer with the letter of the right option only."
    return asks, tuple(CAPITALS)


def _shown_texts(question: Question) -> Prompt:
    return _plain(question)[0], _spaced(question.options)


def _cloze(question: Question) -> Prompt:
    return f"Question: {question.text}\nAnswer:", _spaced(question.options)


def _spaced(ends: Sequence[str]) -> tuple[str, ...]:
    return tuple(f" {end}" for end in ends)


FORMATS = (
    Format("A. lines", _plain),
    Format("(a) lines", _small),
    Format("1. lines", _digits),
    Format("A: one line", _one_line),
    Format("header, A. lines", _header),
    Format("one example, A. lines", _one_shot),
    Format("chat, A. lines", _instruct, chat=True),
    Format("A. lines, option's words", _shown_texts, letters=False),
    Format("no options, words", _cloze, letters=False),
    Format("no options, words per character", _cloze, letters=False, per_character=True),
)


# ------------------------------------------------------------ as a judge


def _judge_chat(task: str, first: str, second: str) -> Prompt:
    asks = f"{task}\n\nAnswer 1: {first}\nAnswer 2: {second}\n\nWhich answer is better? Reply with 1 or 2 only."
    return asks, ("1", "2")


def _judge_plain(task: str, first: str, second: str) -> Prompt:
    return f"{task}\nA: {first}\nB: {second}\nThe better answer is", (" A", " B")


JUDGES: dict[str, tuple[Callable[[str, str, str], Prompt], bool]] = {
    "chat, 1 or 2": (_judge_chat, True),
    "plain, A or B": (_judge_plain, False),
}


def verdict_prompt(judge: str, task: str, first: str, second: str, tokenizer: Any) -> Prompt:
    """What a judge of this name is asked about two answers, in this order."""
    write, chat = JUDGES[judge]
    prefix, ends = write(task, first, second)
    return (in_chat(prefix, tokenizer), ends) if chat else (prefix, ends)


def padded(answer: str) -> str:
    """The same answer among words that add nothing: about five times as long."""
    return (
        f"That is a very good question, and many people ask it. The answer is {answer}. "
        "I hope that this helps you, and please ask again if anything is not clear."
    )
