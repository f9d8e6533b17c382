"""Models that several chapters share: trained on first use from a recipe, kept in a cache, never committed.

A model's folder is named after its recipe and after the code that follows it: change either, and the model is
trained anew. It is written aside and renamed, so that a folder which is there is whole; what has been damaged
since is trained again. The one that reads Wikipedia is a GPT-2 as transformers writes one, with its tokeniser:
``AutoModelForCausalLM.from_pretrained`` and ``AutoTokenizer.from_pretrained`` read it. The one that reads ToyWorld
has rotary positions, and :func:`toyworld_gpt` reads it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from llmbook import corpora
from llmbook.bpe import BPE
from llmbook.files import write_whole
from llmbook.toyworld import ToyWorld
from llmbook.training import TrainingArguments, evaluate_loss, fit, pack, packed_batches, padded_batches
from llmbook.transformer import GPT, GPTConfig

EOS = "<|endoftext|>"
MANIFEST = "zoo.json"
CODE = (
    "zoo.py", "corpora.py", "bpe.py", "products.py", "attention.py", "toyworld", "training", "transformer", "weights"
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """All that decides what a model becomes: text, vocabulary, sizes, training, seed."""

    name: str
    vocab_size: int = 1024
    n_embd: int = 96
    n_layer: int = 2
    n_head: int = 4
    n_positions: int = 128
    block_size: int = 64
    batch_size: int = 8
    max_steps: int = 600
    learning_rate: float = 2e-3
    warmup_steps: int = 30
    seed: int = 0  # of the first weights and of the batches


RECIPES = {recipe.name: recipe for recipe in (Recipe("wikipedia-gpt"),)}


@dataclass(frozen=True)
class ToyRecipe:
    """All that decides what a GPT learns of ToyWorld. No story is read twice."""

    name: str = "toyworld-gpt"
    n_embd: int = 128
    n_inner: int = 512
    n_layer: int = 2
    n_head: int = 4
    n_positions: int = 128  # no story is longer
    batch_size: int = 8  # stories
    max_steps: int = 1200
    learning_rate: float = 2e-3
    warmup_steps: int = 60
    seed: int = 0  # of the first weights, of the stories and of their order


AnyRecipe = TypeVar("AnyRecipe", Recipe, ToyRecipe)


# ------------------------------------------------------------ text


@functools.cache
def wikipedia_texts() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Articles for training, validation and testing, one string each; no recipe trains on the last two."""
    parts = corpora.split(corpora.wikipedia(punctuation=True), (0.8, 0.1, 0.1), seed=0)
    return tuple(tuple(text_of(document) for document in part) for part in parts)


def text_of(document: corpora.Document) -> str:
    """A document's tokens with a space between them, a sentence in each line."""
    return "\n".join(" ".join(sentence) for sentence in document.sentences)


def encode(tokenizer: object, texts: Sequence[str]) -> torch.Tensor:
    """Texts end to end as ids (N,), each closed by the tokeniser's end of text. Any tokeniser of transformers."""
    ids = [tokenizer.encode(text, add_special_tokens=False, verbose=False) for text in texts]  # long texts are fine
    return pack(ids, tokenizer.eos_token_id)


# ------------------------------------------------------------ cache


def cache_folder() -> Path:
    """Where models are kept: ``LLMBOOK_CACHE``, else llmbook in the user's cache folder."""
    named = os.environ.get("LLMBOOK_CACHE")
    users = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else users / "llmbook"


def key(recipe: AnyRecipe) -> str:
    """Twelve hexadecimal digits that change with the recipe, with the code that follows it, and with torch."""
    root = Path(__file__).parent
    paths = [
        p for part in CODE for p in ([root / part] if part.endswith(".py") else sorted((root / part).glob("*.py")))
    ]
    digest = hashlib.sha256(json.dumps(dataclasses.asdict(recipe), sort_keys=True).encode())
    digest.update(torch.__version__.encode())
    for path in paths:
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:12]


def pretrained(name: str = "wikipedia-gpt") -> Path:
    """The folder of a model of :data:`RECIPES`, trained first if it is not there. ValueError for another name."""
    if name not in RECIPES:
        raise ValueError(f"name must be one of {', '.join(RECIPES)}, got {name!r}")
    _no_progress_bars()
    return kept(RECIPES[name], train)


def toyworld_gpt(seed: int = 0) -> GPT:
    """The GPT that chapters 13 to 15 make smaller, trained from its seed if it is not there; in evaluation mode.

    Its ids are those of ``ToyWorld("small")``; a row is a story opened by ``<bos>``.
    """
    return GPT.from_pretrained(kept(ToyRecipe(seed=seed), train_toyworld))


def _no_progress_bars() -> None:
    """Where nobody watches: in a notebook, transformers' bars would become part of the output."""
    from transformers.utils import logging  # takes seconds to import

    if not sys.stderr.isatty():
        logging.disable_progress_bar()


def kept(recipe: AnyRecipe, make: Callable[[AnyRecipe, Path], None]) -> Path:
    """The folder of a recipe's model; where it is missing or damaged, ``make(recipe, folder)`` fills a new one."""
    folder = cache_folder() / f"{recipe.name}-{key(recipe)}"
    if is_sound(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(recipe, aside)
        hashes = {path.name: corpora.sha256(path) for path in sorted(aside.iterdir())}
        about = {"recipe": dataclasses.asdict(recipe), "sha256": hashes}
        write_whole(aside / MANIFEST, json.dumps(about, indent=2) + "\n")
        _put(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _put(aside: Path, folder: Path) -> None:
    """Rename a whole folder into its place. Another process may have been quicker: then what it wrote stays."""
    if not is_sound(folder):
        shutil.rmtree(folder, ignore_errors=True)
    try:
        os.replace(aside, folder)
    except OSError:
        if not is_sound(folder):
            raise


def is_sound(folder: Path) -> bool:
    """Whether a folder holds every file that its manifest names, unaltered."""
    try:
        hashes = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["sha256"]
        return bool(hashes) and all(corpora.sha256(folder / name) == wanted for name, wanted in hashes.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


# ------------------------------------------------------------ pre-training


def train(recipe: Recipe, folder: Path) -> None:
    """Learn a vocabulary and train a GPT on Wikipedia as the recipe says; write both, and the losses, to folder."""
    texts, held_out, _ = wikipedia_texts()
    bpe = BPE.train(texts, recipe.vocab_size, (EOS,))
    eos = bpe.token_to_id(EOS)
    tokens = pack([bpe.encode(text) for text in texts], eos)
    validation = pack([bpe.encode(text) for text in held_out], eos)[: 64 * recipe.block_size]
    model = GPT(_config(recipe, len(bpe), eos), generator=torch.Generator().manual_seed(recipe.seed))
    args = _arguments(recipe)
    history = fit(model, packed_batches(tokens, args), args,
                  evaluate=lambda m: evaluate_loss(m, validation, recipe.block_size), progress=False)  # fmt: skip
    model.save_pretrained(folder)
    _save_tokenizer(bpe, folder, recipe.n_positions)
    losses = {"train": [row["loss"] for row in history.steps], "validation": history.evaluations}
    write_whole(folder / "losses.json", json.dumps(losses) + "\n")


def _config(recipe: Recipe, vocab_size: int, eos: int) -> GPTConfig:
    sizes = {name: getattr(recipe, name) for name in ("n_positions", "n_embd", "n_layer", "n_head")}
    return GPTConfig(vocab_size=vocab_size, eos_token_id=eos, **sizes)


def _arguments(recipe: Recipe) -> TrainingArguments:
    names = ("block_size", "batch_size", "max_steps", "learning_rate", "warmup_steps", "seed")
    return TrainingArguments(**{name: getattr(recipe, name) for name in names}, adam_beta2=0.98)


def _save_tokenizer(bpe: BPE, folder: Path, longest: int) -> None:
    """``tokenizer.json`` as BPE writes it, beside what makes ``AutoTokenizer`` read it."""
    from transformers import PreTrainedTokenizerFast  # takes seconds to import

    bpe.save(folder / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token=EOS, bos_token=EOS, pad_token=EOS,
        model_max_length=longest, model_input_names=["input_ids", "attention_mask"], clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    bpe.save(folder / "tokenizer.json")  # without the template that transformers adds, and that adds nothing


def train_toyworld(recipe: ToyRecipe, folder: Path) -> None:
    """Train a GPT on stories of ToyWorld as the recipe says; write it to folder."""
    world = ToyWorld("small")
    told = world.stories(recipe.max_steps * recipe.batch_size, recipe.seed)
    rows = [world.encode(["<bos>", *story.tokens]) for story in told]
    config, args = _toy_config(recipe, len(world.vocabulary)), _toy_arguments(recipe)
    model = GPT(config, generator=torch.Generator().manual_seed(recipe.seed))
    fit(model, padded_batches(rows, args), args, progress=False)
    model.save_pretrained(folder)


def _toy_config(recipe: ToyRecipe, vocab_size: int) -> GPTConfig:
    sizes = {name: getattr(recipe, name) for name in ("n_positions", "n_embd", "n_inner", "n_layer", "n_head")}
    spread = 0.02 * math.sqrt(768 / recipe.n_embd)  # GPT-2's, carried over from its width to this one
    return GPTConfig(vocab_size, **sizes, positions="rotary", initializer_range=spread)


def _toy_arguments(recipe: ToyRecipe) -> TrainingArguments:
    names = ("batch_size", "max_steps", "learning_rate", "warmup_steps", "seed")
    rest = {"block_size": recipe.n_positions, "min_lr_ratio": 0.0, "adam_beta2": 0.98, "weight_decay": 0.01}
    return TrainingArguments(**{name: getattr(recipe, name) for name in names}, **rest)
