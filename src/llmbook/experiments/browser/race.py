"""The race: files for both contestants, a server that only this machine reaches, a browser, and what came back."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llmbook import edge, npm
from llmbook.toyworld import ToyWorld
from llmbook.transformer import GPT, GPTConfig

ROOT = Path(__file__).resolve().parents[4]
STATIC = ROOT / "book" / "_static"
DATA = ROOT / "book" / "data" / "browser.json"
RUNTIME = "onnxruntime-web", "1.30.0"
RUNTIME_FILES = "ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"
WIDER = {"n_embd": 768, "n_inner": 3072, "n_layer": 1, "n_head": 12}
COUNT, ROUNDS, LIMIT = 60, 7, 900  # tokens a round, rounds, seconds
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-component-update",
    "--disable-background-networking", "--disable-sync",
)  # fmt: skip


class CannotRace(RuntimeError):
    """What the race needs is not here, or it failed; the message says what."""


def browser() -> str:
    """The path of a Chromium."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    raise CannotRace("no chromium, chromium-browser or google-chrome on the PATH")


def runtime() -> Path:
    """The folder of ONNX Runtime Web's files."""
    try:
        return npm.package(*RUNTIME, [f"dist/{file}" for file in RUNTIME_FILES]) / "dist"
    except npm.NotBrought as error:
        raise CannotRace(str(error)) from None


# ------------------------------------------------------------ contestants


def wider(vocab_size: int, seed: int = 0) -> GPT:
    """One layer of GPT-2's width, some seven million weights; untrained: for its speed only."""
    config = GPTConfig(vocab_size, 128, positions="rotary", **WIDER)
    return GPT(config, generator=torch.Generator().manual_seed(seed)).eval()


def models() -> dict[str, tuple[GPT, list[str]]]:
    """The page's GPT with its words, and a wider one with as many."""
    small, words = edge.load_page(edge.PAGE_WEIGHTS)
    return {"ToyWorld's GPT": (small, words), "a wider one, untrained": (wider(len(words)), words)}


def prepare(folder: Path, model: GPT, words: list[str], number: int, count: int, rounds: int) -> dict[str, Any]:
    """Write a model's four files; what the page must know of them."""
    files = []
    for kind in ("float32", "int8"):
        name = f"{number}-{kind}.safetensors"
        edge.save_page(model, words, folder / name, kind)
        files.append({"name": name, "kind": "javascript", "weights": kind})
    edge.export(model, folder / f"{number}-float32.onnx")
    edge.quantize(folder / f"{number}-float32.onnx", folder / f"{number}-int8.onnx")
    files += [{"name": f"{number}-{k}.onnx", "kind": "onnxruntime-web", "weights": k} for k in ("float32", "int8")]
    world = ToyWorld("small")
    row = world.encode(["<bos>", *world.stories(1, 3)[0].tokens[:40]]).tolist()
    config = {name: getattr(model.config, name) for name in ("n_layer", "n_head", "n_embd")}
    return {"config": config, "files": files, "row": row, "prompt": row[:16], "count": count, "rounds": rounds}


def judge(name: str, model: GPT, plan: dict[str, Any], found: list[dict[str, Any]], folder: Path) -> list[dict]:
    """A row for each contestant: its speed, its bytes, and its logits against torch's in float32."""
    with torch.no_grad():
        wanted = model(torch.tensor([plan["row"]])).logits[0].numpy()  # (T, V)
    rows = []
    for one in found:
        logits, rates = np.array(one["logits"]), [plan["count"] / s for s in one["seconds"]]
        code = ["gpt.js"] if one["kind"] == "javascript" else list(RUNTIME_FILES)
        rows.append({
            "model": name, "runtime": one["kind"], "weights": one["weights"],
            "tokens_per_second": statistics.median(rates), "slowest": min(rates), "fastest": max(rates),
            "seconds": one["seconds"], "bytes": (folder / one["name"]).stat().st_size,
            "code_bytes": sum((folder / file).stat().st_size for file in code),
            "logits_difference": float(np.abs(logits - wanted).max()),
            "same_choice": float((logits.argmax(-1) == wanted.argmax(-1)).mean()), "written": one["written"],
        })  # fmt: skip
    return rows


# ------------------------------------------------------------ the race


class _Server(SimpleHTTPRequestHandler):
    """Files of one folder, and one message that comes back."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(204)
        self.end_headers()
        self.server.result = json.loads(body)  # type: ignore[attr-defined]
        self.server.done.set()  # type: ignore[attr-defined]

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Server, directory=str(folder)))
    server.result, server.done = None, threading.Event()  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def _run(folder: Path, chromium: str) -> dict[str, Any]:
    """Open race.html and wait for what it sends back."""
    with _served(folder) as server, tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as home:
        address = f"http://127.0.0.1:{server.server_address[1]}/race.html"
        process = subprocess.Popen(
            [chromium, *FLAGS, f"--user-data-dir={home}", "--remote-debugging-port=0", address],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            if not server.done.wait(LIMIT):  # type: ignore[attr-defined]
                raise CannotRace(f"the browser did not finish in {LIMIT} seconds")
        finally:
            process.terminate()
            process.wait(30)
    result = server.result  # type: ignore[attr-defined]
    if "error" in result:
        raise CannotRace(f"the page failed: {result['error']}")
    return result


def race(count: int = COUNT, rounds: int = ROUNDS, only: int | None = None) -> dict[str, Any]:
    """Run all contestants, of the first ``only`` models. Raises CannotRace where npm or Chromium is missing."""
    chromium, files = browser(), runtime()
    chosen = dict(list(models().items())[:only])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for source in (
            STATIC / "gpt.js",
            Path(__file__).parent / "race.html",
            *(files / file for file in RUNTIME_FILES),
        ):
            shutil.copy(source, folder)
        plans = [prepare(folder, *pair, n, count, rounds) for n, pair in enumerate(chosen.values())]
        (folder / "plan.json").write_text(json.dumps(plans), encoding="utf-8")
        back = _run(folder, chromium)
        triples = zip(chosen.items(), plans, back["results"], strict=True)
        rows = [row for (name, pair), plan, found in triples for row in judge(name, pair[0], plan, found, folder)]
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "system": platform.system()}
    return {
        "browser": back["browser"].split("Chrome/")[-1].split()[0], "runtime": "@".join(RUNTIME), "threads": 1,
        "machine": machine, "tokens": count, "rounds": rounds, "rows": rows,
    }  # fmt: skip


def load(path: str | Path = DATA) -> dict[str, Any]:
    """What a race wrote. FileNotFoundError that names the command where there is nothing."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; `python -m llmbook.experiments.browser` writes it") from None
