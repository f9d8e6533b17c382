// The form of chapter 26: it loads the weights, which lie beside it as a script, and shows what gpt.js writes.
"use strict";

(() => {
  const part = (name) => document.getElementById(`gpt-${name}`);
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  let model = null;

  async function write() {
    model = model || (await gptTools.model());
    const words = gptTools.words(part("beginning").value);
    const problem = gptTools.problem(model, words);
    if (problem) {
      part("said").textContent = problem;
      return;
    }
    const ids = ["<bos>", ...words].map((word) => model.vocabulary.indexOf(word));
    const options = { temperature: Number(part("temperature").value), seed: Number(part("seed").value) };
    let [text, count, time, start] = [words.join(" "), 0, 0, performance.now()];
    for (const token of model.write(ids, options)) {
      count += 1;
      time += performance.now() - start;
      text += ` ${model.vocabulary[token]}`;
      part("written").textContent = text;
      await pause(); // let the page show the word
      start = performance.now();
    }
    part("said").textContent = `${count} words, ${Math.round((1000 * count) / Math.max(time, 1))} a second, in this page.`;
  }

  part("form").addEventListener("submit", async (event) => {
    event.preventDefault();
    part("written").textContent = "";
    part("said").textContent = "Writing …";
    try {
      await write();
    } catch (error) {
      part("said").textContent = "The weights could not be loaded or run here.";
    }
  });
  part("form").hidden = false;
  const asked = new URLSearchParams(location.search); // a link may bring a beginning
  if (asked.has("beginning")) {
    for (const name of ["beginning", "temperature", "seed"]) {
      if (asked.has(name)) part(name).value = asked.get(name);
    }
    part("form").requestSubmit();
  }
})();
