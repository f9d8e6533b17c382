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

function extract(text, weights, stop) {
  let best = "";
  let most = -1;
  for (const sentence of text.split(/(?<=[.!?])\s+(?=[A-Z0-9(“"])/u)) {
    let sum = 0;
    for (const term of new Set(terms(sentence, stop))) sum += weights.get(term) || 0;
    if (sum > most) [best, most] = [sentence, sum];
  }
  return best;
}

if (typeof document !== "undefined") {
  const form = document.getElementById("assistant");
  const answers = document.getElementById("assistant-answers");
  const here = document.currentScript.src;
  form.hidden = false;
  let loading = null;
  const show = (element, text) => {
    const item = document.createElement(element);
    item.textContent = text; // never as HTML
    return item;
  };
  const load = (address) =>
    new Promise((resolve, reject) => {
      const script = document.createElement("script"); // unlike a fetch, works where the book is opened from a folder
      script.src = address;
      script.onload = resolve;
      script.onerror = reject;
      document.head.append(script);
    });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const question = document.getElementById("assistant-question").value;
    try {
      loading = loading || load(new URL("assistant_index.js", here));
      await loading;
      const index = globalThis.assistantIndex;
      const { order, weights, stop } = rank(index, question);
      const items = order.slice(0, 5).map((i) => {
        const passage = index.passages[i];
        const link = show("a", `${passage.chapter}. ${passage.heading}`);
        link.href = new URL("../" + passage.link, here);
        const item = document.createElement("li");
        item.append(link, show("p", extract(passage.text, weights, stop)));
        return item;
      });
      answers.replaceChildren(...(items.length ? items : [show("li", "No section has these words.")]));
    } catch (error) {
      loading = null;
      answers.replaceChildren(show("li", "The index could not be loaded; use the book's search."));
    }
  });
} else if (typeof module !== "undefined") {
  module.exports = { terms, rank, extract };
}
