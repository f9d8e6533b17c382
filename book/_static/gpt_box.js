// The box of chapter 07: the GPT of gpt.js beside the truth of toyworld.js, one word of a story after another.
"use strict";

(() => {
  const OPENING = "it is Monday morning . the nurse Anna is in the";
  const CAST = `${OPENING} hospital . the farmer Tom is in the garden .`;
  const LEFT = `${CAST} Anna leaves a red ball in the museum . she is happy . Tom goes to the office .`;
  const PLACES = {
    "a thing left a while ago": `${LEFT} he picks three apples . they go to the station . Tom looks for the ball and finds it in the`,
    "a place of work": OPENING,
    "a verb and its noun": `${CAST} Anna is happy . the bird near the houses behind the walls`,
    "a sum": `${CAST} Anna picks three apples . she picks two apples . she counts her apples :`,
  };
  const ROWS = 8;
  const SKELETON = `
    <form id="box-form">
      <label>A place to try <select id="box-place"><option value="">your own</option></select></label>
      <label>Temperature <input id="box-temperature" type="number" min="0" max="5" step="0.1" value="1" required></label>
      <label>Seed <input id="box-seed" type="number" min="0" max="4294967295" step="1" value="0" required></label>
      <label class="wide">Beginning of a story
        <textarea id="box-beginning" rows="3" maxlength="900" spellcheck="false" autocomplete="off"></textarea></label>
      <div class="wide">
        <button type="button" id="box-next">Next word</button>
        <button type="button" id="box-all">Write to the end</button>
        <button type="button" id="box-start">Start again</button>
      </div>
    </form>
    <div id="box-story" role="group" aria-label="The story so far"></div>
    <p id="box-broken" role="status"></p>
    <p id="box-said" role="status"></p>
    <table id="box-table" hidden>
      <caption>What can follow: the likeliest words. Press one to take it.</caption>
      <thead><tr>
        <th scope="col">Word</th><th scope="col">Model <span id="box-at"></span></th><th scope="col">Truth</th>
      </tr></thead>
      <tbody></tbody>
    </table>
    <dl id="box-sums">
      <div><dt>Divergence here</dt><dd id="box-divergence">—</dd></div>
      <div><dt>Surprise so far: model</dt><dd id="box-surprise">—</dd></div>
      <div><dt>Surprise so far: truth</dt><dd id="box-floor">—</dd></div>
      <div><dt>Above the floor so far</dt><dd id="box-excess">—</dd></div>
    </dl>`;

  const box = document.getElementById("gpt-box");
  const here = document.currentScript.src;
  const part = (name) => document.getElementById(`box-${name}`);
  const pause = () => new Promise((resolve) => setTimeout(resolve));
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

  // ------------------------------------------------------------ a model and the truth, side by side

  class Story { // place i lies before word i: the model's logits there, and the true distribution (null: there is none)
    constructor(model, beginning) {
      model.forget();
      Object.assign(this, { model, words: [], logits: [], truths: [], broken: null, begun: beginning.length });
      this.reader = new toyworld.Reader();
      this.look("<bos>");
      beginning.forEach((word) => this.over || this.take(word));
    }

    look(word) {
      this.logits.push(this.model.read(this.model.vocabulary.indexOf(word)));
      this.truths.push(this.reader.next);
    }

    take(word) {
      const possible = this.reader.read(word);
      if (possible) this.broken = { place: this.words.length, word, possible };
      this.words.push(word);
      this.look(word);
    }

    get over() {
      return this.words.at(-1) === "<eos>" || this.words.length + 1 >= this.model.config.n_positions;
    }

    chances(temperature) { // natural logarithms of the model's probabilities at the last place
      return logProbabilities(this.logits.at(-1), temperature);
    }

    surprise(temperature) { // the model's, over all words so far, in nats
      const index = (word) => this.model.vocabulary.indexOf(word);
      return sum(this.words.map((word, i) => -logProbabilities(this.logits[i], temperature)[index(word)]));
    }

    floor() { // the truth's surprise, or null after an impossible word
      return this.broken ? null : sum(this.words.map((word, i) => -Math.log(this.truths[i].get(word))));
    }

    divergence(temperature) { // of the model from the truth at the last place, or null
      const [truth, chances, { vocabulary }] = [this.truths.at(-1), this.chances(temperature), this.model];
      return truth && sum([...truth].map(([word, p]) => p * (Math.log(p) - chances[vocabulary.indexOf(word)])));
    }
  }

  function logProbabilities(logits, temperature) { // temperature 0: all on the likeliest
    const most = Math.max(...logits);
    if (temperature === 0) return logits.map((_, v) => (v === logits.indexOf(most) ? 0 : -Infinity));
    const scores = logits.map((logit) => (logit - most) / temperature);
    const total = Math.log(sum(scores.map(Math.exp)));
    return scores.map((score) => score - total);
  }

  function draw(chances, uniform) {
    let rest = uniform;
    const found = chances.findIndex((chance) => (rest -= Math.exp(chance)) < 0);
    return found < 0 ? chances.length - 1 : found;
  }

  function uniform(seed, n) { // the n-th number of gpt.js's generator: seed and place decide, whatever was pressed
    const state = (seed + Math.imul(n + 1, 0x6d2b79f5)) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  // ------------------------------------------------------------ showing

  const number = (name, otherwise) => (part(name).valueAsNumber >= 0 ? part(name).valueAsNumber : otherwise);
  const temperature = () => number("temperature", 1);
  const share = (p) => (p > 0 && p < 0.0005 ? "< 0.001" : p.toFixed(3));
  const truly = (p) => (p === 0 ? "impossible" : share(p));
  const rounded = (x) => (x === Infinity ? "∞" : x.toFixed(3).replace("-0.000", "0.000").replace("-", "−"));
  const nats = (x) => (x === null ? "—" : `${rounded(x)} nats`);

  function element(tag, properties, ...children) {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  }

  function show() {
    const held = box.contains(document.activeElement);
    showStory();
    showTable();
    showSums();
    for (const name of ["next", "all"]) part(name).disabled = story.over;
    if (held && story.over) part("start").focus(); // what had the focus is gone
  }

  function showSums() {
    const [surprise, floor] = [story.surprise(temperature()), story.floor()];
    const values = { surprise, floor, excess: floor === null ? null : surprise - floor };
    values.divergence = story.over ? null : story.divergence(temperature());
    for (const [name, value] of Object.entries(values)) {
      part(name).textContent = nats(value);
      part(name).dataset.value = value;
    }
  }

  function showStory() {
    const parts = story.words.flatMap((textContent, i) => {
      const className = i === story.broken?.place ? "impossible" : i < story.begun ? "" : "written";
      return [element("span", { className, textContent }), " "];
    });
    part("story").replaceChildren(...parts);
    part("broken").textContent = story.broken ? complaint(story.broken) : "";
  }

  function complaint({ word, possible }) {
    const shown = possible.slice(0, ROWS).join(", ") + (possible.length > ROWS ? ", …" : "");
    return `“${word}”, underlined above, is impossible there. Possible: ${shown}. From here on the model is alone.`;
  }

  function showTable() {
    const [truth, chances, { vocabulary }] = [story.truths.at(-1), story.chances(temperature()), story.model];
    const row = (word, v) => ({ word, model: Math.exp(chances[v]), truth: truth && (truth.get(word) || 0) });
    const rows = vocabulary.map(row);
    rows.sort((a, b) => Math.max(b.model, b.truth) - Math.max(a.model, a.truth));
    const rest = rows.splice(ROWS);
    const all = (name) => sum(rest.map((row) => row[name]));
    part("table").hidden = story.over;
    part("at").textContent = `at temperature ${temperature()}`;
    [...part("table").tBodies[0].rows].forEach((line, i) => {
      showRow(line, rows[i] || { word: `${rest.length} others`, model: all("model"), truth: truth && all("truth") });
    });
  }

  function showRow(line, { word, model, truth }) { // rows stay where they are, and so does the keyboard's focus
    const [name, ...cells] = line.cells;
    (name.firstElementChild || name).textContent = word;
    Object.assign(line.dataset, { word, model, truth });
    [model, truth].forEach((p, i) => {
      const shown = i === 0 ? share : truly;
      cells[i].firstElementChild.textContent = p === null ? "—" : shown(p);
      cells[i].lastElementChild.style.inlineSize = `${100 * (p || 0)}%`;
    });
  }

  function emptyRow(_, i) {
    const button = () => element("button", { type: "button", onclick: ({ target }) => take(target.textContent) });
    const bars = () => element("td", {}, element("span", {}), element("div", { className: "bar" }));
    return element("tr", {}, element("th", { scope: "row" }, ...(i < ROWS ? [button()] : [])), bars(), bars());
  }

  // ------------------------------------------------------------ doing

  let story = null;
  let writing = 0; // counts what was asked for: whatever comes next ends a writing that goes on

  function take(word) {
    writing += 1;
    step(word);
  }

  function step(word) {
    const v = story.model.vocabulary.indexOf(word);
    const [model, truth] = [Math.exp(story.chances(temperature())[v]), story.truths.at(-1)];
    story.take(word);
    show();
    say(`“${word}”: ${share(model)} by the model${truth ? `, ${truly(truth.get(word) || 0)} in truth` : ""}.`);
  }

  function say(text) {
    const why = story.words.at(-1) === "<eos>" ? "The story is over." : "A story has no more words.";
    part("said").textContent = story.over ? `${text} ${why}` : text;
  }

  async function write(count) {
    const mine = ++writing;
    const [seed, before] = [number("seed", 0), story.words.length];
    for (let i = 0; i < count && mine === writing && !story.over; i++) {
      if (i) await pause(); // let the page show the word
      const drawn = draw(story.chances(temperature()), uniform(seed, story.words.length - story.begun));
      step(story.model.vocabulary[drawn]);
    }
    if (count > 1 && mine === writing) say(`${story.words.length - before} words written.`);
  }

  function start() {
    writing += 1;
    const words = gptTools.words(part("beginning").value);
    const problem = gptTools.problem(model, words);
    story = new Story(model, problem ? [] : words);
    show();
    say(problem || `${words.length} words read.`);
  }

  let model = null;
  let loading = null;

  function alive() { // the model is a megabyte: it is loaded when the box comes into view
    loading = loading || gptTools.model().then((loaded) => {
      model = loaded;
      start();
    });
    return loading;
  }

  const safely = (action) => async () => {
    try {
      await alive();
      await action();
    } catch (error) {
      part("said").textContent = "The model could not be loaded or run here.";
    }
  };

  function prepare() {
    box.innerHTML = SKELETON;
    part("table").tBodies[0].append(...Array.from({ length: ROWS + 1 }, emptyRow));
    part("place").append(...Object.keys(PLACES).map((name) => new Option(name)));
    part("place").selectedIndex = 1;
    part("beginning").value = Object.values(PLACES)[0];
    part("said").textContent = "The model is being loaded …";
  }

  function dress() { // with the style sheet that lies beside this script; the box is shown when it is there
    const href = new URL("gpt_box.css", here);
    const onload = () => (box.hidden = false);
    document.head.append(element("link", { rel: "stylesheet", href, onload, onerror: onload }));
  }

  function listen() {
    part("start").addEventListener("click", safely(start));
    part("next").addEventListener("click", safely(() => write(1)));
    part("all").addEventListener("click", safely(() => write(Infinity)));
    part("temperature").addEventListener("input", safely(show));
    part("beginning").addEventListener("input", () => (part("place").selectedIndex = 0));
    part("beginning").addEventListener("change", safely(start));
    part("place").addEventListener("change", safely(() => {
      part("beginning").value = PLACES[part("place").value] || "";
      start();
    }));
  }

  function whenSeen(action) {
    const watch = new IntersectionObserver((entries) => {
      if (!entries.some((entry) => entry.isIntersecting)) return;
      watch.disconnect();
      action();
    }, { rootMargin: "600px" });
    watch.observe(box);
  }

  function open() { // a link may bring a state: ?beginning=…&temperature=0&seed=1&words=20
    const asked = new URLSearchParams(location.search);
    const names = ["beginning", "temperature", "seed"].filter((name) => asked.has(name));
    names.forEach((name) => (part(name).value = asked.get(name)));
    if (asked.has("beginning")) part("place").selectedIndex = 0;
    if (names.length || asked.has("words")) safely(() => write(Number(asked.get("words"))))();
    else whenSeen(safely(() => {}));
  }

  prepare();
  dress();
  listen();
  open();
})();
