// The stack-LSTM of one string, a step at a time, in float32: what stackrev/kernels/cpu/stream.h computes.
//
//     z = W_x x + b + [r; h] W,   i, f, o = sigmoid,   g = tanh,   c = f c + i g,   h = o tanh(c)
//     push, pop = clamp((1 + 2e) sigmoid(a) - e, 0, 1),   value = tanh,   logits = W_l tanh(W_o h + b_o) + b_l
//
// Sizes: V symbols, H hidden units, K layers, stack width M, O outputs. Matrices are row-major, as stackrev stores them.
"use strict";

const START = 0, SEPARATOR = 1, END = 2, FIRST_SYMBOL = 3;
const TOGETHER = 16;                                        // so many steps are taken between two looks at the clock
const BEST = 3;                                             // so many of the likeliest symbols are kept of each step

const sigmoid = x => Math.fround(1 / (1 + Math.exp(-x)));
const tanh = x => Math.fround(Math.tanh(x));

// to[j] += sum_i from[i] matrix[i, j], rounded to float32 after every product and every sum.
function addProduct(to, from, matrix, rows, columns, first = 0) {
  for (let i = 0; i < rows; i++) {
    const factor = from[i], row = (first + i) * columns;
    if (factor === 0) continue;
    for (let j = 0; j < columns; j++) to[j] = Math.fround(to[j] + Math.fround(factor * matrix[row + j]));
  }
}

function transposed(matrix, rows, columns) {
  const made = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) for (let j = 0; j < columns; j++) made[j * rows + i] = matrix[i * columns + j];
  return made;
}

class Network {
  // shape: hidden, width, layers, vocabulary, stretch;  weights: a Float32Array for each name
  constructor(shape, weights) {
    Object.assign(this, shape);
    this.weights = weights;
    const { hidden: H, vocabulary: V } = this, own = "decoder_controls.weight" in weights;
    this.output = transposed(weights["output.weight"], weights["output.bias"].length, H);
    this.logits = transposed(weights["logits.weight"], V, weights["output.bias"].length);
    this.phases = ["encoder", "decoder"].map(name => {
      const controls = name === "decoder" && own ? "decoder_controls" : "controls";
      return {
        symbols: weights[`${name}.symbols`],
        recurrent: Array.from({ length: this.layers }, (_, k) => weights[`${name}.recurrent.${k}`]),
        biases: Array.from({ length: this.layers }, (_, k) => weights[`${name}.bias.${k}`]),
        control: weights[`${controls}.weight`], controlBias: weights[`${controls}.bias`],
      };
    });
    this.z = new Float32Array(4 * H);
    this.controls = new Float32Array(2 + this.width);
    this.middle = new Float32Array(weights["output.bias"].length);
    this.scores = new Float32Array(V);
  }

  get symbols() { return this.vocabulary - FIRST_SYMBOL; }

  start() {
    return {
      h: this.weights.initial_hidden.slice(), c: this.weights.initial_cell.slice(), read: new Float32Array(this.width),
    };
  }

  // The cells of one step of the encoder (0) or of the decoder (1): h and c of the state change.
  cells(phase, symbol, state) {
    const { hidden: H, width: M, z } = this, { symbols, recurrent, biases } = this.phases[phase];
    for (let k = 0; k < this.layers; k++) {
      const below = k === 0 ? state.read : state.h.subarray((k - 1) * H, k * H);
      const h = state.h.subarray(k * H, (k + 1) * H), c = state.c.subarray(k * H, (k + 1) * H);
      z.set(biases[k]);
      if (k === 0) for (let j = 0; j < 4 * H; j++) z[j] += symbols[symbol * 4 * H + j];
      addProduct(z, below, recurrent[k], k === 0 ? M : H, 4 * H);
      addProduct(z, h, recurrent[k], H, 4 * H, k === 0 ? M : H);
      for (let j = 0; j < H; j++) {
        const gain = Math.fround(sigmoid(z[j]) * tanh(z[2 * H + j]));
        c[j] = Math.fround(Math.fround(sigmoid(z[H + j]) * c[j]) + gain);
        h[j] = Math.fround(sigmoid(z[3 * H + j]) * tanh(c[j]));
      }
    }
  }

  top(state) { return state.h.subarray((this.layers - 1) * this.hidden); }

  // Push, pop and the pushed value that follow from the hidden state; the value is overwritten by the next call.
  controlsOf(phase, state) {
    const { controls, width: M } = this, { control, controlBias } = this.phases[phase];
    controls.set(controlBias);
    addProduct(controls, this.top(state), control, this.hidden, 2 + M);
    for (let j = 0; j < M; j++) controls[2 + j] = tanh(controls[2 + j]);
    return { push: this.gate(controls[0]), pop: this.gate(controls[1]), value: controls.subarray(2) };
  }

  gate(x) {
    const e = Math.fround(this.stretch), stretch = Math.fround(1 + 2 * e);
    return Math.min(1, Math.max(0, Math.fround(Math.fround(stretch * sigmoid(x)) - e)));
  }

  // The logits of the next symbol; overwritten by the next call.
  answers(state) {
    const { middle, scores, weights } = this;
    middle.set(weights["output.bias"]);
    addProduct(middle, this.top(state), this.output, this.hidden, middle.length);
    for (let j = 0; j < middle.length; j++) middle[j] = tanh(middle[j]);
    scores.set(weights["logits.bias"]);
    addProduct(scores, middle, this.logits, middle.length, this.vocabulary);
    return scores;
  }
}

// The values on a stack, and where each begins: what is popped is gone.
class Stack {
  constructor(width) {
    this.width = width;
    this.height = 0;
    this.bottoms = [];
    this.values = new Float32Array(64 * width);
  }

  step(value, push, pop, read) {
    const level = Math.max(0, this.height - pop), { bottoms, width } = this;
    while (bottoms.length && bottoms[bottoms.length - 1] >= level) bottoms.pop();
    if ((bottoms.length + 1) * width > this.values.length) {
      const larger = new Float32Array(2 * this.values.length);
      larger.set(this.values);
      this.values = larger;
    }
    this.values.set(value, bottoms.length * width);
    bottoms.push(level);
    this.height = level + push;
    read.fill(0);
    const floor = this.height - 1;
    for (let i = bottoms.length - 1, end = this.height; i >= 0 && end > floor; end = bottoms[i], i--) {
      const share = Math.fround(end - Math.max(bottoms[i], floor));
      if (share > 0) for (let j = 0; j < width; j++) read[j] += Math.fround(share * this.values[i * width + j]);
    }
  }
}

// A list of numbers that grows.
class Numbers {
  constructor(kind) { this.all = new kind(256); this.length = 0; }
  push(number) {
    if (this.length === this.all.length) {
      const larger = new this.all.constructor(2 * this.length);
      larger.set(this.all);
      this.all = larger;
    }
    this.all[this.length++] = number;
  }
  at(place) { return this.all[place]; }
}

// What the network does with one string, as far as it has been computed. A gate that is held has the value held.push or
// held.pop in every step; null leaves it to the network.
class Run {
  constructor(network, ids, held = { push: null, pop: null }) {
    Object.assign(this, { network, ids, held, reading: ids.length + 1 });
    this.state = network.start();
    this.probe = network.start();
    this.stack = new Stack(network.width);
    for (const name of ["push", "pop", "wantedPush", "wantedPop", "bottom", "height", "odds"])
      this[name] = new Numbers(Float64Array);               // push and pop as applied, and as the network wants them
    for (const name of ["fed", "below", "topmost", "likeliest"]) this[name] = new Numbers(Int32Array);
    this.written = [];
    this.tallest = 1;
    this.firstError = -1;                                   // the place of the first symbol that is not as it should be
    this.done = false;
  }

  get steps() { return this.height.length; }
  get limit() { return 2 * this.ids.length + 2; }

  // Goes on until it is done, or until `until` steps, or until the time is over.
  advance(deadline = Infinity, until = Infinity) {
    while (!this.done && this.steps < until) {
      this.step();
      if (this.steps % TOGETHER === 0 && performance.now() >= deadline) break;
    }
    return this.done;
  }

  step() {
    const { network, state, steps, reading } = this, phase = steps < reading ? 0 : 1;
    const last = this.written.length ? this.written[this.written.length - 1] : SEPARATOR;
    const symbol = phase ? last : steps === 0 ? START : this.ids[steps - 1];
    network.cells(phase, symbol, state);
    const wanted = network.controlsOf(phase, state);
    const push = this.held.push ?? wanted.push, pop = this.held.pop ?? wanted.pop;
    this.wantedPush.push(wanted.push);
    this.wantedPop.push(wanted.pop);
    this.stack.step(wanted.value, push, pop, state.read);
    this.fed.push(symbol);
    this.column(push, pop);
    if (phase) {
      const written = this.keepBest(network.answers(state));
      if (this.firstError < 0 && written !== this.wanted(this.written.length)) this.firstError = this.written.length;
      this.written.push(written);
      this.done = written === END || this.written.length > this.ids.length;
    } else {                                                // what it would write first if the text ended here
      for (const name of ["h", "c", "read"]) this.probe[name].set(state[name]);
      network.cells(1, SEPARATOR, this.probe);
      this.keepBest(network.answers(this.probe));
    }
  }

  // The column after each step: an element begins at the level at which it was pushed and ends where the one above it
  // begins, so it is enough to know each element's lower neighbour and each step's topmost.
  column(push, pop) {
    const n = this.steps, level = Math.max(0, (n ? this.height.at(n - 1) : 0) - pop);
    let top = n ? this.topmost.at(n - 1) : -1;
    while (top >= 0 && this.bottom.at(top) >= level) top = this.below.at(top);
    this.push.push(push);
    this.pop.push(pop);
    this.bottom.push(level);
    this.below.push(top);
    this.topmost.push(push > 0 ? n : top);
    this.height.push(level + push);
    this.tallest = Math.max(this.tallest, level + push);
  }

  // Keeps the likeliest symbols of a step and their probabilities, and returns the likeliest.
  keepBest(logits) {
    const best = [];
    for (let v = 0; v < logits.length; v++) {
      let place = best.length;
      while (place > 0 && logits[v] > logits[best[place - 1]]) place--;
      if (place < BEST) {
        best.splice(place, 0, v);
        best.length = Math.min(best.length, BEST);
      }
    }
    let total = 0;
    for (let v = 0; v < logits.length; v++) total += Math.exp(logits[v] - logits[best[0]]);
    for (let place = 0; place < BEST; place++) {
      this.likeliest.push(best[place] ?? -1);
      this.odds.push(place < best.length ? Math.exp(logits[best[place]] - logits[best[0]]) / total : 0);
    }
    return best[0];
  }

  // The likeliest symbols of step n, counted from 0: what it writes there, or would write if the text ended there.
  said(n) {
    return Array.from({ length: BEST }, (_, place) => ({
      id: this.likeliest.at(BEST * n + place), odds: this.odds.at(BEST * n + place),
    })).filter(each => each.id >= 0);
  }

  // The elements after step n, counted from 0, from the top down; `faint` is the least strength that counts.
  *elements(n, faint = 0) {
    for (let each = this.topmost.at(n), end = this.height.at(n); each >= 0; end = this.bottom.at(each), each = this.below.at(each)) {
      const strength = end - this.bottom.at(each);
      const read = Math.max(0, end - Math.max(this.bottom.at(each), this.height.at(n) - 1));
      if (strength >= faint) yield { step: each, bottom: this.bottom.at(each), strength, read };
    }
  }

  // What it should write at a place, counted from 0.
  wanted(place) { return place < this.ids.length ? this.ids[this.ids.length - 1 - place] : END; }
}
