// The assistant of chapter 17 in the page: BM25 over the index that the build wrote, an extract, and a link.
// It ranks as llmbook.applications.assistant does; tests compare the two.
"use strict";

const WORD = /\d+(?:[.,]\d+)*[\p{L}\p{N}_]*|(?!\d)[\p{L}\p{N}_]+?(?=['’]s(?![\p{L}\p{N}_]))|(?!\d)[\p{L}\p{N}_]+(?:['’](?!s(?![\p{L}\p{N}_]))[\p{L}\p{N}_]+)*|['’]s(?![\p{L}\p{N}_])/gu;

function stem(word) {
  for (const ending of ["ing", "ies", "es", "ed", "s"]) {
    if (word.endsWith(ending) && word.length - ending.length >= 4 && !word.endsWith("ss")) {
      return word.slice(0, -ending.length) + (ending === "ies" ? "y" : "");
    }
  }
  return word.endsWith("e") && word.length > 4 ? word.slice(0, -1) : word;
}

function terms(text, stop) {
  const words = text.replaceAll("’", "'").toLowerCase().match(WORD) || [];
  return words.filter((word) => word !== "'s" && !stop.has(word)).map(stem);
}

function rank(index, question) {
  const stop = new Set(index.stop);
  const number = index.passages.length;
  const mean = index.passages.reduce((sum, p) => sum + p.length, 0) / number;
  const scores = new Float64Array(number);
  const weights = new Map();
  for (const term of terms(question, stop)) {
    const row = Object.hasOwn(index.words, term) ? index.words[term] : [];
    const holding = row.length / 2;
    const idf = Math.log(1 + (number - holding + 0.5) / (holding + 0.5));
    weights.set(term, idf);
    for (let i = 0; i < row.length; i += 2) {
      const often = row[i + 1];
      const length = index.passages[row[i]].length;
      scores[row[i]] += (idf * often) / (often + index.k1 * (1 - index.b + (index.b * length) / mean));
    }
  }
  const order = [...scores.keys()].filter((i) => scores[i] > 0).sort((a, b) => scores[b] - scores[a] || a - b);
  return { order, scores, weights, stop };
}

const END = /(?<=[.!?])["'”’)\]]*\s+(?=["'“‘([]*[A-Z0-9])/g;
const ABBREVIATION = /(?:\b[A-Za-z]|\b(?:Dr|Mr|Mrs|Ms|St|Jr|Sr|Prof|Gen|Col|Lt|No|vs|ca|cf|al|etc))\.$/;

function sentences(text) {
  const parts = [];
  let start = 0;
  for (const match of text.matchAll(END)) {
    if (ABBREVIATION.test(text.slice(Math.max(0, match.index - 6), match.index))) continue;
    parts.push(text.slice(start, match.index + match[0].length).trim());
    start = match.index + match[0].length;
  }
  parts.push(text.slice(start).trim());
  return parts.filter((part) => part);
}

function extract(passage, weights, stop) {
  let best = passage.heading;
  let most = -1;
  for (const sentence of sentences(passage.text)) {
    const shared = [...new Set(terms(sentence, stop))].filter((term) => weights.has(term)).sort();
    const sum = shared.reduce((total, term) => total + weights.get(term), 0);
    if (sum > most) [best, most] = [sentence, sum];
  }
  return best;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text; // never as HTML
  return made;
}

// A script, unlike what a fetch brings, may be loaded where the book is opened from a folder.
function load(address) {
  return new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = address;
    script.onload = resolve;
    script.onerror = reject;
    document.head.append(script);
  });
}

function found(passage, here, weights, stop) {
  const link = element("a", `${passage.chapter}. ${passage.heading}`);
  link.href = new URL("../" + passage.link, here);
  const item = document.createElement("li");
  item.append(link, element("p", extract(passage, weights, stop)));
  return item;
}

function start() {
  const form = document.getElementById("assistant-form");
  const box = document.getElementById("assistant-question");
  const answers = document.getElementById("assistant-answers");
  const said = document.getElementById("assistant-said");
  const here = document.currentScript.src;
  let loading = null;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    try {
      loading = loading || load(new URL("assistant_index.js", here));
      await loading;
      const index = globalThis.assistantIndex;
      const { order, weights, stop } = rank(index, box.value);
      const best = order.slice(0, 5).map((i) => found(index.passages[i], here, weights, stop));
      answers.replaceChildren(...best);
      said.textContent = best.length ? `${best.length} sections, the best first:` : "No section has these words.";
    } catch (error) {
      loading = null;
      answers.replaceChildren();
      said.textContent = "The index could not be loaded; use the book's search.";
    }
  });
  form.hidden = false;
  const asked = new URLSearchParams(location.search).get("q"); // a link may bring a question
  if (asked) {
    box.value = asked;
    form.requestSubmit();
  }
}

if (typeof document !== "undefined") start();
else if (typeof module !== "undefined") module.exports = { terms, rank, sentences, extract };
