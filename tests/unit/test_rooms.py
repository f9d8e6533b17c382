"""The house: every module has its floor, imports point downwards, and no module is two ideas."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import llmbook

ROOT = Path(llmbook.__file__).parent
FLOORS = (  # from the ground up; a room may use those below it, and its neighbours on the left
    ("files", "claims", "plots", "profiling"),
    ("corpora", "bpe", "tokenization", "toyworld"),
    ("evaluation", "ngrams", "word2vec", "attention", "autograd", "products", "optimizers"),
    ("weights", "transformer", "pretrained"),
    ("objectives", "training", "parallel", "decoding", "lora", "compression", "interpretability"),
    ("zoo", "npm"),
    ("applications", "metrics", "uncertainty", "fairness", "privacy", "federated", "multimodal", "edge"),
    ("experiments",),
    ("exercises",),
)
HEIGHT = {room: height for height, room in enumerate(room for floor in FLOORS for room in floor)}
MODULES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")
MOST_LINES = 450


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def rooms_used(source: str) -> set[str]:
    """The rooms that a module's imports name, those inside functions too."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "llmbook":
            names |= {f"llmbook.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[1] for name in names if name.startswith("llmbook.")}


def test_every_room_has_its_floor():
    assert {room_of(path) for path in MODULES} == set(HEIGHT)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path):
    room = room_of(path)
    upwards = {used for used in rooms_used(path.read_text(encoding="utf-8")) - {room} if HEIGHT[used] > HEIGHT[room]}
    assert not upwards, f"{room} stands below {upwards}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES


def test_an_upward_import_would_be_seen():
    source = "import llmbook.training.loop\nfrom llmbook import plots\ndef f():\n    from llmbook.bpe import BPE"
    assert rooms_used(source) == {
        "training",
        "plots",
        "bpe",
    }


def test_what_the_house_lets_in_is_quiet():
    """A warning on a chapter's first import of transformers would be an output that its notebook does not have."""
    code = "import llmbook; from transformers import BertModel, AutoModelForCausalLM"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("", "")
