"""Chapter 21's long run: the real model on one multiple-choice set under ten formats, and as a judge.

questions: the set, made from the analogies that gensim ships · prompts: the formats, the judge's two wordings ·
runs: what is computed, the file ``book/data/prompted.jsonl``, and ``python -m llmbook.experiments.prompted``.
"""

from llmbook.experiments.prompted.prompts import FORMATS, JUDGES, Format
from llmbook.experiments.prompted.questions import Question, questions, starts
from llmbook.experiments.prompted.runs import DATA, TRIALS, load, measure, missing, run

__all__ = [
    "DATA", "FORMATS", "JUDGES", "TRIALS", "Format", "Question", "load", "measure", "missing", "questions", "run",
    "starts",
]  # fmt: skip
