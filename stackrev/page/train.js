// A small stack-LSTM, trained from nothing: the recipe of stackrev/training, and the derivatives of
// structures/plain_recurrence.py, for one layer and one thread.
//
// A batch is a list of row-steps: row b at step t of the encoder, and then of the decoder. Rows are sorted by falling
// length, so those that still run are the first so many, and a step's row-steps lie one after the other. Everything that
// a row-step has is at its number in an array of its own: `source` [M + H] (the read and the hidden state before),
// `activated` [4H] (input, forget, new and output gate), `cell`, `hidden` [H], `control` [C] (value, push, pop).
//
// Sizes: V symbols and markers, H hidden units and as many outputs, stack width M, C = M + 4 with two columns unused.
"use strict";

const LENGTHS = [8, 64], TEST_LENGTHS = [65, 128];          // of strings in training, and of those that it has to be right on
const RECIPE = {
  symbols: 26, hidden: 32, width: 32, batch: 50, rate: 0.008, clip: 1, stretch: 0.05, gateNoise: 1, stringNoise: 3,
  pushBias: 1.5, popBias: -1.5, curriculumStart: 8, curriculumLoss: 1,
  checkEvery: 10, checkBelow: 0.2, checked: 20, confirmed: 200, mostBatches: 1500, sampleEvery: 5, sampleLength: 20,
};

// ---- The network, its derivative and its optimizer.

class Trainer {
  constructor(seed, recipe = RECIPE) {
    Object.assign(this, { recipe, random: new Random(seed), fresh: new Random(seed ^ 0x5bd1e995) });
    const H = this.H = recipe.hidden, M = this.M = recipe.width, V = this.V = recipe.symbols + 3;
    const C = this.C = M + 4, W = this.W = (V + 3) & ~3;
    this.shapes = {
      encoderSymbols: [V, 4 * H], decoderSymbols: [V, 4 * H], encoderRecurrent: [M + H, 4 * H], decoderRecurrent: [M + H, 4 * H],
      encoderBias: [1, 4 * H], decoderBias: [1, 4 * H], encoderControl: [H, C], decoderControl: [H, C],
      encoderControlBias: [1, C], decoderControlBias: [1, C], initialHidden: [1, H], initialCell: [1, H],
      output: [H, H], outputBias: [1, H], logits: [H, W], logitsBias: [1, W],
    };
    let size = 0;
    for (const [rows, columns] of Object.values(this.shapes)) size += rows * columns;
    for (const name of ["weights", "gradients", "first", "second"]) this[name] = new Float32Array(size);
    this.w = {};
    this.g = {};
    size = 0;
    for (const [name, [rows, columns]] of Object.entries(this.shapes)) {
      this.w[name] = this.weights.subarray(size, size + rows * columns);
      this.g[name] = this.gradients.subarray(size, size + rows * columns);
      size += rows * columns;
    }
    this.turned = Object.fromEntries(Object.entries(this.shapes).map(([name, [rows, columns]]) => [name, new Float32Array(rows * columns)]));
    this.capacity = 0;
    this.batches = 0;
    this.longest = recipe.curriculumStart;
    this.initialise();
  }

  initialise() {
    const { H, M, V, C, W, w, random, recipe } = this, bound = 1 / Math.sqrt(H);
    const uniform = array => { for (let i = 0; i < array.length; i++) array[i] = bound * (2 * random.uniform() - 1); };
    for (const phase of ["encoder", "decoder"]) {
      for (let i = 0; i < V * 4 * H; i++) w[`${phase}Symbols`][i] = 0.5 * random.normal();
      uniform(w[`${phase}Recurrent`]);
      uniform(w[`${phase}Bias`]);
      const control = w[`${phase}Control`], gate = Math.sqrt(2 / (H + 1)), value = Math.sqrt(2 / (H + M));
      for (let i = 0; i < H; i++)
        for (let j = 0; j < M + 2; j++) control[i * C + j] = (j < M ? value : gate) * random.normal();
      w[`${phase}ControlBias`][M] = recipe.pushBias;
      w[`${phase}ControlBias`][M + 1] = recipe.popBias;
    }
    for (let i = 0; i < H * H; i++) w.output[i] = Math.sqrt(1 / H) * random.normal();
    for (let i = 0; i < H; i++) for (let j = 0; j < V; j++) w.logits[i * W + j] = bound * (2 * random.uniform() - 1);
    for (let j = 0; j < V; j++) w.logitsBias[j] = bound * (2 * random.uniform() - 1);
  }

  room(size) {
    if (size <= this.capacity) return;
    this.capacity = size;
    const { H, M, C, W } = this, floats = {
      source: M + H, activated: 4 * H, cell: H, hidden: H, control: C, squashed: 2, middle: H, scores: W,
      gSource: M + H, gZ: 4 * H, gCell: H, gHidden: H, gControl: C, gMiddle: H, gValue: M,
    };
    for (const [name, width] of Object.entries(floats)) this[name] = new Float32Array(size * width);
    for (const name of ["bottom", "height", "gBottom"]) this[name] = new Float64Array(size);
    this.below = new Int32Array(size);
  }

  // ---- Forward. Without noise, the network as it is.

  forward(batch, noisy) {
    this.room(batch.size);
    for (const name of ["encoderRecurrent", "decoderRecurrent", "encoderControl", "decoderControl", "output", "logits"])
      transpose(this.turned[name], this.w[name], ...this.shapes[name]);
    const { H, M, source, w } = this, S = M + H;
    for (let b = 0; b < batch.rows; b++) {
      source.fill(0, b * S, b * S + M);
      source.set(w.initialHidden, b * S + M);
    }
    for (let p = 0; p < 2; p++) {
      const noise = noisy ? Float32Array.from({ length: 2 * batch.rows }, () => this.recipe.stringNoise * this.random.normal()) : null;
      const phase = batch.phases[p];
      for (let t = 0; t < phase.steps; t++) this.forwardStep(batch, p === 0 ? "encoder" : "decoder", phase.starts[t], phase.running[t], noise);
    }
  }

  forwardStep(batch, name, start, n, noise) {
    const { H, M, C, w, source, activated, control, cell, hidden } = this, S = M + H;
    const symbols = w[`${name}Symbols`], bias = w[`${name}Bias`];
    for (let i = 0; i < n; i++) {
      const z = (start + i) * 4 * H, x = batch.fed[start + i] * 4 * H;
      for (let j = 0; j < 4 * H; j++) activated[z + j] = symbols[x + j] + bias[j];
    }
    multiply(activated, start * 4 * H, source, start * S, this.turned[`${name}Recurrent`], n, S, 4 * H);
    for (let i = 0; i < n; i++) {
      const g = start + i, z = g * 4 * H, before = batch.before[g];
      for (let j = 0; j < H; j++) {
        const I = squash(activated[z + j]), F = squash(activated[z + H + j]);
        const G = bend(activated[z + 2 * H + j]), O = squash(activated[z + 3 * H + j]);
        const c = F * (before < 0 ? w.initialCell[j] : cell[before * H + j]) + I * G;
        activated[z + j] = I;
        activated[z + H + j] = F;
        activated[z + 2 * H + j] = G;
        activated[z + 3 * H + j] = O;
        cell[g * H + j] = c;
        hidden[g * H + j] = O * bend(c);
      }
      control.set(w[`${name}ControlBias`], g * C);
    }
    multiply(control, start * C, hidden, start * H, this.turned[`${name}Control`], n, H, C);
    for (let i = 0; i < n; i++) this.useStack(batch, start + i, noise, i);
  }

  useStack(batch, g, noise, row) {
    const { H, M, C, recipe, control, squashed, source, hidden, bottom, below, height } = this, at = g * C, e = recipe.stretch;
    for (let j = 0; j < M; j++) control[at + j] = bend(control[at + j]);
    for (let gate = 0; gate < 2; gate++) {
      let x = control[at + M + gate];
      if (noise) x += noise[2 * row + gate] + recipe.gateNoise * this.random.normal();
      const s = squashed[2 * g + gate] = squash(x);
      control[at + M + gate] = Math.min(1, Math.max(0, (1 + 2 * e) * s - e));
    }
    const before = batch.before[g], after = batch.after[g];
    const level = bottom[g] = Math.max(0, (before < 0 ? 0 : height[before]) - control[at + M + 1]);
    let last = before;
    while (last >= 0 && bottom[last] >= level) last = below[last];
    below[g] = last;
    height[g] = level + control[at + M];
    if (after < 0) return;
    const read = after * (M + H), floor = height[g] - 1;
    source.fill(0, read, read + M);
    for (let i = g, top = height[g]; i >= 0; top = bottom[i], i = below[i]) {
      const share = top - Math.max(bottom[i], floor);
      if (share > 0) for (let j = 0; j < M; j++) source[read + j] += share * control[i * C + j];
      if (bottom[i] <= floor) break;
    }
    for (let j = 0; j < H; j++) source[read + M + j] = hidden[g * H + j];
  }

  // The logits of all steps of the decoder.
  readOut(batch) {
    const { H, W, w, middle, scores, hidden } = this, from = batch.decoderStart, n = batch.size - from;
    for (let i = 0; i < n; i++) {
      middle.set(w.outputBias, (from + i) * H);
      scores.set(w.logitsBias, (from + i) * W);
    }
    multiply(middle, from * H, hidden, from * H, this.turned.output, n, H, H);
    for (let i = from * H; i < batch.size * H; i++) middle[i] = bend(middle[i]);
    multiply(scores, from * W, middle, from * H, this.turned.logits, n, H, W);
  }

  // The mean loss, in nats a symbol; `scores` become the gradients of themselves.
  loss(batch) {
    const { V, W, scores } = this, n = batch.size - batch.decoderStart;
    let sum = 0;
    for (let g = batch.decoderStart; g < batch.size; g++) {
      const at = g * W, target = batch.target[g];
      let best = -Infinity, total = 0;
      for (let v = 0; v < V; v++) best = Math.max(best, scores[at + v]);
      const right = scores[at + target] - best;
      for (let v = 0; v < V; v++) total += scores[at + v] = Math.exp(scores[at + v] - best);
      sum += Math.log(total) - right;
      for (let v = 0; v < V; v++) scores[at + v] /= total * n;
      scores[at + target] -= 1 / n;
      for (let v = V; v < W; v++) scores[at + v] = 0;
    }
    return sum / n;
  }

  // ---- Backward.

  backward(batch) {
    const { H, M, C, W, w, g } = this, S = M + H, from = batch.decoderStart, n = batch.size - from;
    this.gradients.fill(0);
    this.gHidden.fill(0, 0, batch.size * H);
    this.gValue.fill(0, 0, batch.size * M);
    this.gBottom.fill(0, 0, batch.size);
    this.gMiddle.fill(0, from * H, batch.size * H);
    multiplyTransposed(g.logits, this.middle, from * H, this.scores, from * W, n, H, W);
    addRows(g.logitsBias, this.scores, from, n, W);
    multiply(this.gMiddle, from * H, this.scores, from * W, w.logits, n, W, H);
    for (let i = from * H; i < batch.size * H; i++) this.gMiddle[i] *= 1 - this.middle[i] * this.middle[i];
    multiplyTransposed(g.output, this.hidden, from * H, this.gMiddle, from * H, n, H, H);
    addRows(g.outputBias, this.gMiddle, from, n, H);
    multiply(this.gHidden, from * H, this.gMiddle, from * H, w.output, n, H, H);
    this.gHeight = new Float64Array(batch.rows);
    for (let p = 1; p >= 0; p--) {
      const name = p === 0 ? "encoder" : "decoder", phase = batch.phases[p];
      const recurrent = w[`${name}Recurrent`], control = w[`${name}Control`];
      for (let t = phase.steps - 1; t >= 0; t--) this.backwardStep(batch, phase.starts[t], phase.running[t], recurrent, control);
      const begin = phase.starts[0], count = phase.starts[phase.steps] - begin;
      multiplyTransposed(g[`${name}Recurrent`], this.source, begin * S, this.gZ, begin * 4 * H, count, S, 4 * H);
      multiplyTransposed(g[`${name}Control`], this.hidden, begin * H, this.gControl, begin * C, count, H, C);
      addRows(g[`${name}Bias`], this.gZ, begin, count, 4 * H);
      addRows(g[`${name}ControlBias`], this.gControl, begin, count, C);
      const symbols = g[`${name}Symbols`];
      for (let r = begin; r < begin + count; r++) {
        const x = batch.fed[r] * 4 * H;
        for (let j = 0; j < 4 * H; j++) symbols[x + j] += this.gZ[r * 4 * H + j];
      }
    }
    for (let b = 0; b < batch.rows; b++)
      for (let j = 0; j < H; j++) {
        g.initialHidden[j] += this.gSource[b * S + M + j];
        g.initialCell[j] += this.gCell[b * H + j];
      }
  }

  backwardStep(batch, start, n, recurrent, control) {
    const { H, M, C, w, activated, cell, gHidden, gCell, gSource, gZ } = this, S = M + H;
    for (let i = 0; i < n; i++) this.stackBackward(batch, start + i, i);
    multiply(gHidden, start * H, this.gControl, start * C, control, n, C, H);
    for (let i = 0; i < n; i++) {
      const g = start + i, z = g * 4 * H, before = batch.before[g], after = batch.after[g];
      for (let j = 0; j < H; j++) {
        const I = activated[z + j], F = activated[z + H + j], G = activated[z + 2 * H + j], O = activated[z + 3 * H + j];
        const h = gHidden[g * H + j] + (after < 0 ? 0 : gSource[after * S + M + j]);
        const bent = bend(cell[g * H + j]), last = before < 0 ? w.initialCell[j] : cell[before * H + j];
        // gCell of a row-step is the gradient of the cell before it
        const c = (after < 0 ? 0 : gCell[after * H + j]) + h * O * (1 - bent * bent);
        gZ[z + j] = c * G * I * (1 - I);
        gZ[z + H + j] = c * last * F * (1 - F);
        gZ[z + 2 * H + j] = c * I * (1 - G * G);
        gZ[z + 3 * H + j] = h * bent * O * (1 - O);
        gCell[g * H + j] = c * F;
      }
    }
    gSource.fill(0, start * S, (start + n) * S);
    multiply(gSource, start * S, gZ, start * 4 * H, recurrent, n, 4 * H, S);
  }

  // From the gradient of what a row-step has read to those of what it has pushed and popped.
  stackBackward(batch, g, row) {
    const { H, M, C, recipe, control, gControl, gValue, gSource, gBottom, gHeight, bottom, below, height, squashed } = this;
    const after = batch.after[g], floor = height[g] - 1, S = M + H;
    let high = gHeight[row];
    if (after >= 0) {
      for (let i = g, top = height[g], source = -1; i >= 0; top = bottom[i], source = i, i = below[i]) {
        const inside = bottom[i] > floor, share = top - (inside ? bottom[i] : floor);
        if (share > 0) {
          let product = 0;
          for (let j = 0; j < M; j++) {
            const gradient = gSource[after * S + j];
            product += control[i * C + j] * gradient;
            gValue[i * M + j] += share * gradient;
          }
          if (source < 0) high += product; else gBottom[source] += product;
          if (inside) gBottom[i] -= product; else high -= product;
        }
        if (!inside) break;
      }
    }
    const level = gBottom[g] + high, before = bottom[g] > 0 ? level : 0;
    gHeight[row] = before;
    const at = g * C, gates = [high, -before];
    for (let j = 0; j < M; j++) gControl[at + j] = gValue[g * M + j] * (1 - control[at + j] * control[at + j]);
    for (let gate = 0; gate < 2; gate++) {
      const value = control[at + M + gate], s = squashed[2 * g + gate];
      gControl[at + M + gate] = value > 0 && value < 1 ? gates[gate] * (1 + 2 * recipe.stretch) * s * (1 - s) : 0;
    }
    gControl[at + M + 2] = gControl[at + M + 3] = 0;
  }

  // ---- Adam, after clipping.

  update() {
    const { weights, gradients, first, second, recipe } = this, count = ++this.batches;
    let square = 0;
    for (let i = 0; i < gradients.length; i++) square += gradients[i] * gradients[i];
    const norm = Math.sqrt(square), scale = norm > recipe.clip ? recipe.clip / norm : 1;
    const rate = recipe.rate / (1 - 0.9 ** count), correction = 1 / (1 - 0.999 ** count);
    for (let i = 0; i < gradients.length; i++) {
      const gradient = scale * gradients[i];
      first[i] = 0.9 * first[i] + 0.1 * gradient;
      second[i] = 0.999 * second[i] + 0.001 * gradient * gradient;
      weights[i] -= rate * first[i] / (Math.sqrt(second[i] * correction) + 1e-8);
    }
    return norm;
  }

  draw(random, count, shortest, longest) {
    return Array.from({ length: count }, () => Uint8Array.from({ length: shortest + random.below(longest - shortest + 1) }, () => random.below(this.recipe.symbols)));
  }

  // One batch: its loss, and the gates' means while reading and while writing.
  learn() {
    const { recipe } = this, batch = new Batch(this.draw(this.random, recipe.batch, Math.min(LENGTHS[0], this.longest), this.longest));
    this.forward(batch, true);
    this.readOut(batch);
    const loss = this.loss(batch);
    this.backward(batch);
    this.update();
    if (loss < recipe.curriculumLoss) this.longest = Math.min(this.longest + 1, LENGTHS[1]);
    return { batch: this.batches, loss, longest: this.longest, ...this.gates(batch) };
  }

  gates(batch) {
    const { C, M, control } = this, mean = (from, to, gate) => {
      let sum = 0;
      for (let g = from; g < to; g++) sum += control[g * C + M + gate];
      return sum / (to - from);
    };
    const parts = [[0, batch.decoderStart], [batch.decoderStart, batch.size]];
    return { push: parts.map(each => mean(...each, 0)), pop: parts.map(each => mean(...each, 1)) };
  }

  // How many of fresh strings it reverses exactly: up to its first error, a greedy decoder is fed what it should write.
  right(count, lengths = TEST_LENGTHS) {
    const batch = new Batch(this.draw(this.fresh, count, ...lengths)), wrong = new Set(), { V, W } = this;
    this.forward(batch, false);
    this.readOut(batch);
    for (let t = 0; t < batch.phases[1].steps; t++)
      for (let b = 0; b < batch.phases[1].running[t]; b++) {
        const g = batch.phases[1].starts[t] + b, at = g * W, target = batch.target[g];
        for (let v = 0; v < V; v++) if (v !== target && this.scores[at + v] >= this.scores[at + target]) wrong.add(b);
      }
    return count - wrong.size;
  }
}

// The network as network.js knows it: its sizes, and its weights by the names that stackrev has for them.
function exported(trainer) {
  const { H, M, V, C, W, w, recipe } = trainer, weights = {
    initial_hidden: w.initialHidden.slice(), initial_cell: w.initialCell.slice(),
    "output.weight": new Float32Array(H * H), "output.bias": w.outputBias.slice(),
    "logits.weight": new Float32Array(V * H), "logits.bias": w.logitsBias.slice(0, V),
  };
  transpose(weights["output.weight"], w.output, H, H);
  for (let v = 0; v < V; v++) for (let i = 0; i < H; i++) weights["logits.weight"][v * H + i] = w.logits[i * W + v];
  for (const [phase, controls] of [["encoder", "controls"], ["decoder", "decoder_controls"]]) {
    weights[`${phase}.symbols`] = w[`${phase}Symbols`].slice();
    weights[`${phase}.recurrent.0`] = w[`${phase}Recurrent`].slice();
    weights[`${phase}.bias.0`] = w[`${phase}Bias`].slice();
    const rows = (from, count) => Float32Array.from({ length: count * (2 + M) }, (_, at) => {
      const column = at % (2 + M), row = Math.floor(at / (2 + M));
      return from[row * C + (column < 2 ? M + column : column - 2)];
    });
    weights[`${controls}.weight`] = rows(w[`${phase}Control`], H);
    weights[`${controls}.bias`] = rows(w[`${phase}ControlBias`], 1);
  }
  return { shape: { hidden: H, width: M, layers: 1, vocabulary: V, stretch: recipe.stretch }, weights };
}

// What a greedy decoder writes for a string.
function sample(trainer, ids) {
  const { shape, weights } = exported(trainer), run = new Run(new Network(shape, weights), ids);
  run.advance();
  return run.written;
}

// The whole of a training run; `tell` gets an object for each thing that happens.
function train(seed, tell, recipe = RECIPE) {
  const trainer = new Trainer(seed, recipe), start = performance.now(), seconds = () => (performance.now() - start) / 1000;
  const text = Array.from({ length: recipe.sampleLength }, () => 3 + trainer.fresh.below(recipe.symbols));
  let right = 0;
  while (trainer.batches < recipe.mostBatches && right < recipe.confirmed) {
    const learned = { kind: "batch", seconds: seconds(), ...trainer.learn() };
    if (trainer.batches % recipe.sampleEvery === 0) {
      learned.sample = text;
      learned.written = sample(trainer, text);
    }
    tell(learned);
    if (trainer.batches % recipe.checkEvery || learned.loss >= recipe.checkBelow) continue;
    if (trainer.right(recipe.checked) === recipe.checked) right = trainer.right(recipe.confirmed);
  }
  const learned = { kind: "done", learned: right === recipe.confirmed, batch: trainer.batches, seconds: seconds() };
  tell({ ...learned, right, count: recipe.confirmed, long: trainer.right(10, [1000, 1000]), ...exported(trainer) });
}
