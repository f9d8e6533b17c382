// What the pages share in which a GPT of this book runs: its weights, which lie beside this script, and a beginning.
"use strict";

const gptTools = (() => {
  const here = document.currentScript.src;

  // A script, unlike what a request brings, may be loaded where the book is opened from a folder.
  function load(address) {
    return new Promise((resolve, reject) => {
      const script = Object.assign(document.createElement("script"), { src: address, onload: resolve, onerror: reject });
      document.head.append(script);
    });
  }

  async function model() {
    await load(new URL("gpt_weights.js", here));
    return new gpt.GPT(Uint8Array.from(atob(globalThis.gptWeights), (c) => c.charCodeAt(0)).buffer);
  }

  const words = (text) => text.replace(/[.,:?]/g, " $& ").split(/\s+/).filter(Boolean);

  function problem({ vocabulary, config }, beginning) { // why the model cannot read these words, or nothing
    const unknown = beginning.filter((word) => !vocabulary.includes(word));
    if (unknown.length) {
      return `Not a word of ToyWorld: ${unknown.join(", ")}. It knows ${vocabulary.length}, such as Anna, happy, garden.`;
    }
    return beginning.length + 1 >= config.n_positions ? `A story has at most ${config.n_positions} words.` : "";
  }

  return { model, words, problem };
})();
