"""Sphinx extension: the words and sentences of ToyWorld as a script, from which book/_static/toyworld.js reads.

The script's engine and choosers are a port; the data is not: it comes from llmbook.toyworld, so that a word or a
sentence stands in one place only.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

WORDS = (
    "days", "times", "jobs", "names_she", "names_he", "names_open", "places", "towns", "things", "colours", "fruits",
    "feelings", "acts", "group_acts", "scenes", "landmarks", "qualitys", "workplace", "homes",
)  # fmt: skip
SIZES = ("cast", "min_events", "stop", "max_events", "max_tokens")


def world_data(preset: str = "small") -> dict[str, Any]:
    """All that the port needs to know of a world, in JSON's types."""
    from llmbook.toyworld import ToyWorld, choosers, state, words  # the book's own package, as in llmbook_sphinx
    from llmbook.toyworld.events import OPENERS

    world = ToyWorld(preset)
    return {name: getattr(world, name) for name in WORDS} | {
        "sentences": [sentence(template) for template in world.templates],
        "openers": {item(opener): mass for opener, mass in OPENERS.items()},
        "size": {name: getattr(world.size, name) for name in SIZES},
        "she": {job: world.she(job) for job in world.jobs},
        "numbers": state.NUMBERS,
        "pronouns": state.PRONOUNS,
        "plurals": state.PLURALS,
        "singulars": {plural: singular for singular, plural in state.PLURALS.items()},
        "plural_scenes": list(words.SCENES),
        "amount": choosers.AMOUNT.probs,
        "tones": {luck: step.probs for luck, step in choosers.TONES.items()},
    }


def sentence(template: Any) -> dict[str, Any]:
    """A template without its Chinese."""
    fields = {field.name: getattr(template, field.name) for field in dataclasses.fields(template)}
    del fields["chinese"]
    return fields | {"items": [item(one) for one in template.items]}


def item(one: str | tuple[str, str]) -> str:
    """A word as it is, a slot as "name=chooser": no word has an equals sign."""
    return one if isinstance(one, str) else "=".join(one)


def write_world(app: Sphinx, error: Exception | None) -> None:
    """Write the data as a script, which a page that is opened from a folder may load."""
    if error is None and app.builder.format == "html":
        text = json.dumps(world_data(), separators=(",", ":"))
        target = Path(app.outdir) / "_static" / "toyworld_data.js"
        target.write_text(f"globalThis.toyworldData = {text};\n", encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("build-finished", write_world)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
