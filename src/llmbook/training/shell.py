"""Training from the shell: ``python -m llmbook.training --help``."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from llmbook import corpora
from llmbook.tokenization import Vocabulary
from llmbook.toyworld import ToyWorld
from llmbook.training.arguments import TrainingArguments
from llmbook.training.batches import pack, packed_batches
from llmbook.training.loop import fit
from llmbook.training.measures import check_blocks, evaluate_loss
from llmbook.training.processes import process_group, ranks
from llmbook.transformer import GPT, GPTConfig


def load_corpus(name: str, stories: int, seed: int) -> tuple[Vocabulary, Tensor, Tensor]:
    """A vocabulary and packed ids (N,) for training and validation: ``toyworld``, ``wikipedia``, or a text file.

    ToyWorld and Wikipedia are read word by word, a text file character by character; its last tenth is for
    validation.
    """
    if name == "toyworld":
        told = [story.words for story in ToyWorld().stories(stories, seed)]
        train, valid = told[: len(told) * 9 // 10], told[len(told) * 9 // 10 :]
    elif name == "wikipedia":
        train, valid, _ = ([d.tokens for d in part] for part in corpora.split(corpora.wikipedia(), seed=seed))
    else:
        text = corpora.read_text(name)
        train, valid = [list(text[: len(text) * 9 // 10])], [list(text[len(text) * 9 // 10 :])]
    words = (token for document in train for token in document)
    vocabulary = Vocabulary(words, min_count=1 if name != "wikipedia" else 3, specials=("<eos>", "<unk>"))
    packed = [pack([vocabulary.encode(d) for d in part], vocabulary.token_to_id("<eos>")) for part in (train, valid)]
    return vocabulary, packed[0], packed[1]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m llmbook.training",
        description="Train the book's GPT. On several processes: torchrun --nproc-per-node 2 -m llmbook.training …",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--corpus", default="toyworld", help="toyworld, wikipedia, or a text file")
    parser.add_argument("--stories", type=int, default=10_000, help="how many ToyWorld stories to draw")
    parser.add_argument("--output", required=True, help="folder for checkpoints, the model and its history")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in the output folder")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or mps")
    for name, default in {"n_layer": 4, "n_head": 4, "n_embd": 128, "dropout": 0.0}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help="the model's")
    for setting in dataclasses.fields(TrainingArguments):
        flag = f"--{setting.name.replace('_', '-')}"
        parser.add_argument(flag, type=type(setting.default), default=setting.default, help="see TrainingArguments")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Train from the shell; the folder named by ``--output`` then holds what ``GPT.from_pretrained`` reads."""
    options = _parser().parse_args(argv)
    args = TrainingArguments(**{f.name: getattr(options, f.name) for f in dataclasses.fields(TrainingArguments)})
    with process_group(options.device) as device:
        vocabulary, train, valid = load_corpus(options.corpus, options.stories, args.seed)
        check_blocks(valid, args.block_size, f"validation part of corpus {options.corpus}")
        shape = {name: getattr(options, name) for name in ("n_layer", "n_head", "n_embd")}
        drop = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), options.dropout)
        config = GPTConfig(vocab_size=len(vocabulary), n_positions=args.block_size, **shape, **drop)
        model = GPT(config, generator=torch.Generator().manual_seed(args.seed)).to(device)
        history = fit(
            model,
            packed_batches(train, args),
            args,
            evaluate=lambda m: evaluate_loss(m, valid, args.block_size),
            checkpoint_dir=Path(options.output) / "checkpoints",
            resume=options.resume,
            about={"vocabulary": hashlib.sha256(json.dumps(vocabulary.tokens).encode()).hexdigest()[:16]},
        )
        if ranks()[0] == 0:
            model.save_pretrained(options.output)
            vocabulary.save(Path(options.output) / "vocabulary.json")
            print(json.dumps({"steps": len(history.steps), "validation_loss": history.evaluations[-1]["loss"]}))
