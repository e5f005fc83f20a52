// Training in the page: the worker that trains, and what is shown of it.
"use strict";

const learning = { worker: null, points: [], result: null, seed: 0, drawn: false };
const letters = ids => ids.map(id => id < FIRST_SYMBOL ? MARKERS[id] : String.fromCharCode(94 + id)).join("");   // 3 is a

function startTraining() {
  stopTraining();
  const seed = learning.seed = Math.min(2 ** 32 - 1, Math.max(0, Math.floor(Number(at("train-seed").value)) || 0));
  at("train-seed").value = seed;
  Object.assign(learning, { points: [], result: null });
  at("training").hidden = false;
  at("train-stop").hidden = false;
  at("train-use").hidden = true;
  at("train-told").textContent = "Training has begun.";
  at("train-status").textContent = "Drawing random weights.";
  const scripts = ["text-script", "network-script", "train-script"].map(id => at(id).textContent);
  const address = URL.createObjectURL(new Blob([...scripts, "onmessage = event => train(event.data, each => postMessage(each));"], { type: "text/javascript" }));
  const worker = learning.worker = new Worker(address);
  URL.revokeObjectURL(address);
  worker.onmessage = event => worker === learning.worker && trained(event.data);
  worker.onerror = event => failed(event.message || "the browser does not let a page compute in the background");
  worker.postMessage(seed);
}

function failed(reason) {
  stopTraining();
  at("train-status").textContent = `It cannot go on: ${reason}.`;
}

function stopTraining() {
  learning.worker?.terminate();
  learning.worker = null;
  at("train-stop").hidden = true;
}

function trained(event) {
  if (event.kind === "batch") {
    learning.points.push(event);
    if (event.sample) showSample(event.sample, event.written);
    at("train-status").textContent = `Batch ${event.batch}, ${event.seconds.toFixed(1)} s: loss ${event.loss.toFixed(3)}, strings of up to ${event.longest}.`;
    if (!learning.drawn) requestAnimationFrame(drawCurves);
    learning.drawn = true;
    return;
  }
  stopTraining();
  if (event.learned) learning.result = event;
  at("train-use").hidden = !event.learned;
  at("train-status").textContent = at("train-told").textContent = event.learned
    ? `It has learned: after ${event.batch} batches and ${event.seconds.toFixed(1)} s it reverses ${event.right} of ${event.count} new strings of 65 to 128 (1.000), and ${event.long} of 10 of 1,000.`
    : `It has not learned it in ${event.batch} batches. Another seed may.`;
  requestAnimationFrame(drawCurves);
}

function showSample(ids, written) {
  const wanted = [...ids].reverse();
  at("sample-input").textContent = letters(ids);
  at("sample-wanted").textContent = letters([...wanted, END]);
  at("sample-output").replaceChildren(...written.map((id, k) => made("span", { className: id === (wanted[k] ?? END) ? "" : "off" }, letters([id]))));
}

// ---- Curves.

function drawCurves() {
  learning.drawn = false;
  const { points } = learning, last = points[points.length - 1];
  if (!last) return;
  const style = getComputedStyle(document.documentElement), colour = name => style.getPropertyValue(`--${name}`);
  const end = Math.max(250, 100 * Math.ceil(last.batch / 100));
  const log = loss => 1 - (Math.log10(Math.max(loss, 0.001)) + 3) / 4;   // from 10 down to 0.001
  curve("loss-curve", end, [[10, "10"], [1, "1"], [0.1, "0.1"], [0.01, "0.01"], [0.001, "0.001"]].map(([loss, name]) => [log(loss), name]),
    [{ colour: colour("focus"), dash: [], y: each => log(each.loss) }], colour);
  curve("gate-curve", end, [[0, "1"], [0.5, "0.5"], [1, "0"]], ["push", "pop"].flatMap(gate => [0, 1].map(phase => ({
    colour: colour(gate), dash: phase ? [5, 4] : [], y: each => 1 - each[gate][phase],
  }))), colour);
  at("loss-curve").setAttribute("aria-label", `Loss by batch: ${last.loss.toFixed(3)} at batch ${last.batch}`);
  at("gate-curve").setAttribute("aria-label", `Gates by batch: while reading push ${number(last.push[0])} and pop ${number(last.pop[0])}, while writing push ${number(last.push[1])} and pop ${number(last.pop[1])}`);
}

function curve(id, end, scale, lines, colour) {
  const canvas = at(id), ratio = devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio))
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  const context = canvas.getContext("2d"), left = 42, right = width - 8, top = 8, bottom = height - 22;
  const x = batch => left + (right - left) * batch / end, y = share => top + (bottom - top) * share;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = "11px system-ui, sans-serif";
  context.lineWidth = 1;
  context.strokeStyle = colour("line");
  context.fillStyle = colour("soft");
  context.textAlign = "right";
  for (const [share, name] of scale) {
    context.beginPath();
    context.moveTo(left, y(share));
    context.lineTo(right, y(share));
    context.stroke();
    context.fillText(name, left - 5, y(share) + 4);
  }
  context.textAlign = "center";
  for (let batch = 0; batch <= end; batch += end > 500 ? 250 : 50) context.fillText(String(batch), Math.min(x(batch), right - 10), height - 7);
  context.lineWidth = 2;
  for (const line of lines) {
    context.strokeStyle = line.colour;
    context.setLineDash(line.dash);
    context.beginPath();
    for (const each of learning.points) context.lineTo(x(each.batch), y(Math.min(1, Math.max(0, line.y(each)))));
    context.stroke();
  }
  context.setLineDash([]);
  if (!learning.result) return;
  context.strokeStyle = colour("right");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x(learning.result.batch), top);
  context.lineTo(x(learning.result.batch), bottom);
  context.stroke();
}

// ---- The trained network in place of the one that came with the page, and back.

function use(other) {
  model = other;
  at("train-leave").hidden = model === packaged;
  at("train-use").hidden = model !== packaged || !learning.result;
  describe();
  play(false);
  untouched = true;
  begin();
  scrollTo({ top: 0, behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
}

at("train").addEventListener("click", startTraining);
at("train-stop").addEventListener("click", () => {
  stopTraining();
  at("train-told").textContent = "Training has been stopped.";
});
at("train-use").addEventListener("click", () => {
  const { shape, weights } = learning.result;
  use({ network: new Network(shape, weights), name: `the network trained here from seed ${learning.seed}`, margins: null });
});
at("train-leave").addEventListener("click", () => use(packaged));
addEventListener("resize", drawCurves);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCurves);
