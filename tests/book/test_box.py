"""The box of chapter 07: ToyWorld's truth in JavaScript equals Python's, and the page shows it beside torch's model."""

from __future__ import annotations

import json
import math
import random
import sys
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pages
import pytest
import screenshots
import torch
from bs4 import BeautifulSoup

from llmbook import edge
from llmbook.decoding import generate
from llmbook.toyworld import ToyWorld

ROOT = Path(__file__).resolve().parents[2]
STATIC = ROOT / "book" / "_static"
PAGE = "notebooks/07_training.html"
WORLD = ToyWorld("small")
browser = pytest.mark.skipif(screenshots.CHROMIUM is None, reason="no Chromium on this machine")

sys.path.insert(0, str(ROOT / "book" / "_ext"))
from llmbook_world import world_data  # noqa: E402

# --- the port ---------------------------------------------------------------------------------------------

READ = """
const read = (words) => { // the distributions along a text, and where it becomes impossible
  const reader = new toyworld.Reader();
  const rows = [];
  for (const [index, word] of words.entries()) {
    rows.push(Object.fromEntries(reader.next));
    const wanted = reader.read(word);
    if (wanted) return { rows, index, wanted };
  }
  return { rows };
};
const out = document.createElement("pre");
out.id = "out";
out.textContent = JSON.stringify(texts.map(read));
document.body.append(out);
"""


def in_browser(script: str, folder: Path) -> object:
    """What a script in an empty page leaves in an element called "out"."""
    page = folder / "page.html"
    page.write_text(f'<!doctype html><meta charset="utf-8"><body><script>{script}</script>', encoding="utf-8")
    dom = screenshots.chromium("--dump-dom", page.as_uri())
    return json.loads(BeautifulSoup(dom, "html.parser").select_one("#out").text)


def spoilt(text: list[str], rng: random.Random) -> list[str]:
    """The text with another word in one place, which it usually cannot bear."""
    place = rng.randrange(len(text))
    return [*text[:place], rng.choice(WORLD.vocabulary), *text[place + 1 :]]


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    """Whole stories of several seeds, then spoilt ones; what JavaScript says of each."""
    whole = [story.tokens for seed in range(6) for story in WORLD.stories(10, seed)]
    rng = random.Random(0)
    texts = whole + [spoilt(text, rng) for text in whole]
    code = (STATIC / "toyworld.js").read_text(encoding="utf-8")
    script = f"globalThis.toyworldData = {json.dumps(world_data())};\n{code}\nconst texts = {json.dumps(texts)};{READ}"
    found = in_browser(script, tmp_path_factory.mktemp("port"))
    return list(zip(texts, found, strict=True))


@browser
def test_the_port_gives_python_s_probabilities_at_every_place(readings):
    for text, found in readings[:60]:
        for wanted, row in zip(WORLD.trace(text), found["rows"], strict=True):
            support = {WORLD.vocabulary[v]: wanted[v] for v in wanted.nonzero()[0]}
            assert row == pytest.approx(support, abs=1e-9)


@browser
def test_the_port_names_the_word_that_cannot_stand_and_those_that_could(readings):
    verdicts = [(WORLD.is_possible(text), text, found) for text, found in readings]
    assert sum(not verdict for verdict, _, _ in verdicts) > 40
    for verdict, text, found in verdicts:
        assert verdict.index == found.get("index")
        if not verdict:
            assert set(found["wanted"]) == set(WORLD.next_token_dict(text[: verdict.index]))


def test_the_data_hold_each_sentence_and_no_chinese():
    data = world_data()
    assert [s["kind"] for s in data["sentences"]] == [t.kind for t in WORLD.templates]
    assert "who=newcomer" in data["sentences"][1]["items"]
    assert json.dumps(data, ensure_ascii=False).isascii()


# --- the page ---------------------------------------------------------------------------------------------

STORIES = [story.tokens for story in WORLD.stories(6, 11)]
GREEDY = [" ".join(["it is Monday morning . the nurse Anna is in the hospital .", *rest]) for rest in ([], ["the"])]
GREEDY += [" ".join(STORIES[0][:30])]
DRIVE = """
const frame = document.querySelector("iframe");
const until = async (ready) => { while (!ready()) await new Promise((resolve) => setTimeout(resolve, 20)); };
frame.addEventListener("load", async () => {
  const [view, page] = [frame.contentWindow, frame.contentDocument];
  const part = (name) => page.getElementById(`box-${name}`);
  const rows = () => [...page.querySelectorAll("#box-table tbody tr")];
  const shown = () => ({
    rows: rows().map((row) => ({ ...row.dataset, text: row.innerText })),
    values: Object.fromEntries([...page.querySelectorAll("#box-sums dd")].map((dd) => [dd.id, dd.dataset.value])),
    story: part("story").textContent.trim(), broken: part("broken").textContent, said: part("said").textContent,
  });
  const set = (values) => Object.entries(values).forEach(([name, value]) => { part(name).value = value; });
  const start = async (values) => {
    set(values);
    part("said").textContent = "";
    part("start").click();
    await until(() => part("said").textContent);
  };
  const end = async () => { part("all").click(); await until(() => part("next").disabled); return shown(); };
  await until(() => rows().length && part("said").textContent.includes("read"));
  const out = { first: shown(), greedy: [] };
  out.figure = view.getComputedStyle(page.getElementById("fig-ch07-box")).display;
  out.sideways = page.documentElement.scrollWidth - view.innerWidth;
  const right = page.getElementById("gpt-box").getBoundingClientRect().right;
  const boxes = [...page.querySelectorAll("#gpt-box *")];
  out.overflowing = boxes.filter((e) => e.getBoundingClientRect().right > right).map((e) => e.outerHTML.slice(0, 80));

  const station = rows().find((row) => row.dataset.word === "station").querySelector("button");
  station.focus();
  station.click();
  await until(() => part("said").textContent.includes("station"));
  out.impossible = { ...shown(), focus: page.activeElement === station };
  part("next").click();
  await until(() => !part("said").textContent.includes("station"));
  out.alone = shown();

  for (const beginning of greedy) {
    await start({ beginning, temperature: 0 });
    out.greedy.push(await end());
  }
  await start({ beginning: greedy[0], temperature: 1, seed: 3 });
  out.drawn = await end();
  const same = await view.eval("gptTools").model();
  const ids = ["<bos>", ...greedy[0].split(" ")].map((word) => same.vocabulary.indexOf(word));
  const plain = [...same.write(ids, { temperature: 1, seed: 3 })].map((token) => same.vocabulary[token]);
  out.plain = [...greedy[0].split(" "), ...plain];
  out.places = {};
  for (const name of [...part("place").options].map((option) => option.value).filter(Boolean)) {
    part("said").textContent = "";
    set({ place: name });
    part("place").dispatchEvent(new Event("change"));
    await until(() => part("said").textContent);
    out.places[name] = {};
    for (const temperature of ["0", "3", "1"]) {
      set({ temperature });
      part("temperature").dispatchEvent(new Event("input"));
      await until(() => part("at").textContent.endsWith(` ${temperature}`));
      out.places[name][temperature] = shown();
    }
  }
  out.loaded = view.performance.getEntriesByType("resource").map((entry) => entry.name);
  await start({ beginning: "the quark Anna" });
  out.unknown = shown();
  document.getElementById("out").textContent = JSON.stringify(out);
});
"""

PHONE_FRAME = f'<iframe src="book/{PAGE}?{{query}}" width="{screenshots.PHONE}" height="2000"></iframe>'
LEFT = (
    "it is Monday morning . the nurse Anna is in the hospital . the farmer Tom is in the garden . "
    "Anna leaves a red ball in the museum . they go to the station . Tom looks for the ball and finds it in the"
)


@pytest.fixture(scope="module")
def box(book, tmp_path_factory):
    """What the page shows, step by step, when it is used as a reader does: over http, as wide as a phone."""
    if screenshots.CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("box")
    (folder / "book").symlink_to(book, target_is_directory=True)
    frame = PHONE_FRAME.format(query=urlencode({"beginning": LEFT}))
    script = f"const greedy = {json.dumps(GREEDY)};{DRIVE}"
    (folder / "drive.html").write_text(f'<meta charset="utf-8"><pre id="out"></pre>{frame}<script>{script}</script>')
    with screenshots.served(folder) as address:
        dom = screenshots.chromium("--dump-dom", "--window-size=1400,2000", f"{address}/drive.html")
    return {"address": address, **json.loads(BeautifulSoup(dom, "html.parser").select_one("#out").text)}


@pytest.fixture(scope="module")
def model():
    """torch's model with the page's weights, and its words."""
    return edge.load_page(edge.PAGE_WEIGHTS)


def logits(model, text: list[str]) -> torch.Tensor:
    """At each place of the text and after it, (T + 1, V)."""
    gpt, words = model
    with torch.no_grad():
        return gpt(torch.tensor([[words.index(word) for word in ["<bos>", *text]]])).logits[0].double()


def assert_shows(shown: dict, model, text: list[str], temperature: float = 1) -> None:
    """Probabilities and sums are torch's and ToyWorld's."""
    words = model[1]
    chances = (logits(model, text) / temperature).log_softmax(-1)
    truth = WORLD.next_token_dict(text)
    rows = {row["word"]: row for row in shown["rows"][:-1]}
    for word, row in rows.items():
        assert float(row["model"]) == pytest.approx(math.exp(chances[-1, words.index(word)]), abs=1e-4)
        assert float(row["truth"]) == pytest.approx(truth.get(word, 0), abs=1e-6)
        assert ("impossible" in row["text"]) == (word not in truth)
    either = {word: max(math.exp(chances[-1, v]), truth.get(word, 0)) for v, word in enumerate(words)}
    assert min(either[word] for word in rows) >= sorted(either.values())[-8] - 1e-4
    told = WORLD.replay(text).logprobs
    surprise = -sum(float(chances[i, words.index(word)]) for i, word in enumerate(text))
    wanted = {
        "box-divergence": sum(p * (math.log(p) - float(chances[-1, words.index(w)])) for w, p in truth.items()),
        "box-surprise": surprise,
        "box-floor": -told.sum(),
        "box-excess": surprise + told.sum(),
    }
    assert {name: float(value) for name, value in shown["values"].items()} == pytest.approx(wanted, abs=1e-3)


@pytest.mark.enable_socket
def test_the_box_shows_torch_s_probabilities_beside_the_true_ones(box, model):
    assert box["first"]["story"].split() == LEFT.split()
    assert_shows(box["first"], model, LEFT.split())
    for place in box["places"].values():
        for temperature in (1, 3):
            shown = place[str(temperature)]
            assert_shows(shown, model, shown["story"].split(), temperature)


@browser
def test_the_box_opens_from_a_folder_with_the_state_that_a_link_brings(book, model):
    text = STORIES[1][:20]
    query = urlencode({"beginning": " ".join(text), "temperature": 1, "seed": 5, "words": 2})
    soup = BeautifulSoup(screenshots.chromium("--dump-dom", f"{(book / PAGE).as_uri()}?{query}"), "html.parser")
    story = soup.select_one("#box-story").text.split()
    assert story[:20] == text
    assert len(story) == 22
    rows = [
        {name.removeprefix("data-"): value for name, value in row.attrs.items()} | {"text": row.text}
        for row in soup.select("#box-table tbody tr")
    ]
    values = {dd["id"]: dd["data-value"] for dd in soup.select("#box-sums dd")}
    assert_shows({"rows": rows, "values": values}, model, story)


@pytest.mark.enable_socket
def test_at_temperature_0_the_box_writes_what_torch_writes(box, model):
    gpt, words = model
    for beginning, shown in zip(GREEDY, box["greedy"], strict=True):
        ids = [words.index(word) for word in ["<bos>", *beginning.split()]]
        row = generate(gpt, torch.tensor([ids]), 128 - len(ids), eos_token_id=words.index("<eos>"))[0, 1:]
        text = [words[i] for i in row.tolist()]
        best = logits(model, text[:-1])[len(ids) - 1 :].topk(2).values
        assert (best[:, 0] - best[:, 1]).min() > 1e-3, "a near tie: choose another beginning"
        assert shown["story"].split() == text
        assert "The story is over." in shown["said"]


@pytest.mark.enable_socket
def test_the_box_draws_what_the_form_of_chapter_26_draws(box):
    assert box["drawn"]["story"].split() == box["plain"]


@pytest.mark.enable_socket
def test_after_an_impossible_word_the_model_goes_on_alone(box):
    shown = box["impossible"]
    assert "“station”" in shown["broken"]
    assert "Possible: museum." in shown["broken"]
    assert shown["focus"], "a word that is taken by the keyboard loses the focus"
    assert box["alone"]["story"].split()[: len(LEFT.split()) + 1] == [*LEFT.split(), "station"]
    assert all("—" in row["text"] for row in box["alone"]["rows"])
    assert box["alone"]["values"]["box-floor"] == "null"
    assert float(box["alone"]["values"]["box-surprise"]) > float(box["first"]["values"]["box-surprise"])


@pytest.mark.enable_socket
def test_unknown_words_of_a_beginning_are_named(box):
    assert "quark" in box["unknown"]["said"]


@pytest.mark.enable_socket
def test_what_the_chapter_says_of_the_places_to_try(box):
    def divergence(name: str, temperature: int = 1) -> float:
        return float(box["places"][name][str(temperature)]["values"]["box-divergence"].replace("Infinity", "inf"))

    certain = ("a verb and its noun", "a thing left a while ago", "a sum")
    assert all(max(float(row["truth"]) for row in box["places"][name]["1"]["rows"]) == 1 for name in certain)
    assert divergence("a verb and its noun") < 0.02
    assert divergence("a thing left a while ago") > 1
    assert divergence("a sum") > divergence("a thing left a while ago")
    numbers = [row for row in box["places"]["a sum"]["1"]["rows"] if row["word"] in world_data()["numbers"]]
    assert sum(float(row["model"]) for row in numbers) > 0.9
    assert divergence("a place of work", 0) == math.inf
    assert divergence("a place of work") < divergence("a place of work", 3)


@pytest.mark.enable_socket
def test_the_box_asks_no_other_origin_and_fits_a_phone(box):
    assert any(name.endswith("gpt_weights.js") for name in box["loaded"])
    assert {urlsplit(name).netloc for name in box["loaded"]} == {urlsplit(box["address"]).netloc}
    assert box["sideways"] <= 0
    assert box["overflowing"] == []


@pytest.mark.enable_socket
def test_the_picture_stands_for_the_box_until_that_is_alive(book, box):
    page = pages.page(book / PAGE)
    assert page.select_one("#gpt-box").has_attr("hidden")
    assert page.select_one("#fig-ch07-box img")
    assert page.select_one("#gpt-box ~ #fig-ch07-box"), "the style sheet hides what comes after the box"
    assert box["figure"] == "none"


def test_the_box_s_scripts_ask_nobody():
    for name in ("gpt_tools.js", "toyworld.js", "gpt_box.js"):
        code = (STATIC / name).read_text(encoding="utf-8")
        assert not any(word in code for word in ("http", "fetch", "XMLHttpRequest", "WebSocket", "sendBeacon")), name
