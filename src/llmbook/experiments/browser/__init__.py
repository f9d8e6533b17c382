"""The page's GPT beside ONNX Runtime Web, in a headless Chromium: tokens per second, bytes, difference of logits.

``python -m llmbook.experiments.browser`` brings the runtime from npm, runs the race of race.html on this machine and
writes ``book/data/browser.json``, which chapter 26 shows.
"""

from llmbook.experiments.browser.race import DATA, CannotRace, load, race, wider

__all__ = ["DATA", "CannotRace", "load", "race", "wider"]
