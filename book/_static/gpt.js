// A GPT in plain JavaScript. It reads the safetensors file that Python wrote and writes one token after another.
// Matrices lie as GPT-2's do: one row for each input. Tests compare the logits and the tokens with torch's.
"use strict";

const gpt = (() => {
  function half(bits) {
    const sign = bits & 0x8000 ? -1 : 1;
    const exponent = (bits >> 10) & 31;
    const fraction = (bits & 1023) / 1024;
    if (exponent === 0) return sign * fraction * 2 ** -14;
    return exponent === 31 ? NaN : sign * (1 + fraction) * 2 ** (exponent - 15);
  }

  const READERS = {
    F32: (bytes) => new Float32Array(bytes),
    F16: (bytes) => Float32Array.from(new Uint16Array(bytes), half),
    I8: (bytes) => Float32Array.from(new Int8Array(bytes)),
  };

  // The file: eight bytes that say how long the header is, the header in JSON, the numbers.
  function readSafetensors(buffer) {
    const length = Number(new DataView(buffer).getBigUint64(0, true));
    const { __metadata__: about, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
    const tensors = {};
    for (const [name, { dtype, data_offsets: [start, end] }] of Object.entries(entries)) {
      if (!READERS[dtype]) throw new Error(`${name} is of type ${dtype}; this reader knows F32, F16 and I8`);
      tensors[name] = READERS[dtype](buffer.slice(8 + length + start, 8 + length + end));
    }
    for (const name of Object.keys(tensors).filter((name) => `${name}.scale` in tensors)) {
      const scale = tensors[`${name}.scale`]; // one for each row of whole numbers
      const width = tensors[name].length / scale.length;
      tensors[name] = tensors[name].map((value, i) => value * scale[Math.floor(i / width)]);
    }
    return { tensors, config: JSON.parse(about.config), vocabulary: JSON.parse(about.vocabulary) };
  }

  const gelu = (x) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3)));
  const add = (x, y) => x.map((value, i) => value + y[i]);

  class GPT {
    constructor(buffer) {
      Object.assign(this, readSafetensors(buffer));
      this.size = this.config.n_embd / this.config.n_head;
      this.forget();
    }

    forget() {
      this.cache = Array.from({ length: this.config.n_layer }, () => ({ keys: [], values: [] }));
    }

    linear(x, name) {
      const weight = this.tensors[`transformer.${name}.weight`];
      const y = this.tensors[`transformer.${name}.bias`].slice();
      const width = y.length;
      for (let i = 0; i < x.length; i++) {
        const [value, row] = [x[i], i * width];
        for (let j = 0; j < width; j++) y[j] += value * weight[row + j];
      }
      return y;
    }

    norm(x, name) {
      const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
      const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
      const factor = 1 / Math.sqrt(variance + this.config.layer_norm_epsilon);
      const [gain, shift] = ["weight", "bias"].map((part) => this.tensors[`transformer.${name}.${part}`]);
      return x.map((value, i) => (value - mean) * factor * gain[i] + shift[i]);
    }

    rotate(x, position) { // turn features i and i + size/2 of each head by the position's angle
      const middle = this.size / 2;
      for (let i = 0; i < x.length; i++) {
        if (i % this.size >= middle) continue;
        const angle = position * this.config.rope_theta ** ((-2 * (i % this.size)) / this.size);
        const [a, b, cos, sin] = [x[i], x[i + middle], Math.cos(angle), Math.sin(angle)];
        [x[i], x[i + middle]] = [a * cos - b * sin, b * cos + a * sin];
      }
      return x;
    }

    attend(x, layer) { // one query; the keys and values of all tokens so far are in the cache
      const { keys, values } = this.cache[layer];
      const width = x.length;
      const qkv = this.linear(x, `h.${layer}.attn.c_attn`);
      const query = this.rotate(qkv.slice(0, width), keys.length);
      keys.push(this.rotate(qkv.slice(width, 2 * width), keys.length));
      values.push(qkv.slice(2 * width));
      const y = new Float32Array(width);
      for (let start = 0; start < width; start += this.size) {
        const dot = (key) => query.subarray(start, start + this.size).reduce((sum, q, i) => sum + q * key[start + i], 0);
        const weights = softmax(keys.map((key) => dot(key) / Math.sqrt(this.size)));
        weights.forEach((weight, t) => {
          for (let i = start; i < start + this.size; i++) y[i] += weight * values[t][i];
        });
      }
      return this.linear(y, `h.${layer}.attn.c_proj`);
    }

    read(token) { // one more token; the logits of what may follow
      const [width, words] = [this.config.n_embd, this.tensors["transformer.wte.weight"]];
      let x = words.slice(token * width, (token + 1) * width);
      for (let layer = 0; layer < this.config.n_layer; layer++) {
        x = add(x, this.attend(this.norm(x, `h.${layer}.ln_1`), layer));
        const inner = this.linear(this.norm(x, `h.${layer}.ln_2`), `h.${layer}.mlp.c_fc`).map(gelu);
        x = add(x, this.linear(inner, `h.${layer}.mlp.c_proj`));
      }
      x = this.norm(x, "ln_f");
      return this.vocabulary.map((_, v) => x.reduce((sum, value, i) => sum + value * words[v * width + i], 0));
    }

    *write(prompt, { temperature = 1, seed = 0, end = this.vocabulary.indexOf("<eos>") } = {}) {
      this.forget();
      const uniform = generator(seed);
      let logits = prompt.map((token) => this.read(token)).at(-1);
      for (let length = prompt.length; length < this.config.n_positions; length++) {
        const token = choose(logits, temperature, uniform);
        yield token;
        if (token === end) return;
        logits = this.read(token);
      }
    }
  }

  function softmax(scores) {
    const most = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - most));
    const total = powers.reduce((sum, power) => sum + power, 0);
    return powers.map((power) => power / total);
  }

  function choose(logits, temperature, uniform) { // temperature 0: the likeliest
    if (temperature === 0) return logits.indexOf(Math.max(...logits));
    let rest = uniform();
    const probabilities = softmax(logits.map((logit) => logit / temperature));
    const found = probabilities.findIndex((p) => (rest -= p) < 0);
    return found < 0 ? logits.length - 1 : found;
  }

  function generator(seed) { // uniform numbers from a seed: mulberry32, by Tommy Ettinger
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), 1 | state);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  return { GPT, readSafetensors };
})();

if (typeof module !== "undefined") module.exports = gpt;
