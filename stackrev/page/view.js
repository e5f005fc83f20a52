// What is shown, and what the visitor does. Nothing that plays changes the size of anything, so nothing jumps.
"use strict";

const FAINT = 0.005;                                        // an element of which less than this is left is not shown
const SLICE = 10;                                           // milliseconds that the network may take between two frames
const MOST_SHOWN = 20000;                                   // symbols of the answer
const PACE = 420, FAST = 160, LONG = 60;                    // milliseconds from step to step while it plays, and from so many on
const SMALLEST_UNIT = 22, LARGEST_UNIT = 46;                // pixels for one unit of height
const HOLDS = [["free", "free", null], ["shut", "shut", 0], ["half", "half", 0.5], ["open", "open", 1]];
const EFFECTS = {
  push: {
    shut: "Push is shut: nothing is ever poured, so the column stays empty and there is nothing to read back.",
    half: "Push is half open: every symbol is only half as high, so the network sees two of them mixed, and it pours while it writes as well.",
    open: "Push is open all the time: while it writes, it pours something new on top, and sees that instead of your text.",
  },
  pop: {
    shut: "Pop is shut: nothing is ever drained, so what was poured last stays on top, and the network sees it again and again.",
    half: "Pop is half open: while it reads, half of each symbol is lost at once; while it writes, each one stays in sight for too long.",
    open: "Pop is open all the time: each symbol is drained as soon as the next one comes, so only the last is left.",
  },
};

const data = JSON.parse(document.getElementById("data").textContent);
const at = id => document.getElementById(id);
const number = value => value.toFixed(2);
const made = (tag, attributes = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
};

function unpack(names, base64) {
  const text = atob(base64), bytes = new Uint8Array(text.length), weights = {};
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  let start = 0;
  for (const [name, shape] of names) {
    const size = shape.reduce((product, each) => product * each, 1);
    weights[name] = new Float32Array(bytes.buffer, start, size);   // of little-endian numbers, as every browser's are
    start += 4 * size;
  }
  return weights;
}

const packaged = { network: new Network(data.shape, unpack(data.weights, data.values)), name: data.name, margins: data.margins };
let model = packaged, text = "", bound = null, run = null, now = 1, wish = null, timer = null, untouched = true;
const held = { push: "free", pop: "free" };

// ---- The run.

function begin(step) {                                      // a new run; at `step`, or at the end of the reading
  const value = gate => HOLDS.find(each => each[0] === held[gate])[2];
  try {
    bound = bind(text, model.network.symbols);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    at("refused").textContent = error.message;
    at("refused").hidden = false;
    return;
  }
  at("refused").hidden = true;
  run = new Run(model.network, bound.ids, { push: value("push"), pop: value("pop") });
  wish = null;
  compute();
  at("ticks").replaceChildren();
  liquid.clear();
  at("liquid").replaceChildren();
  document.body.classList.remove("moving");
  show(step ?? run.reading);
}

function compute(told = -Infinity) {                        // for one slice, and on after the next frame
  const mine = run, start = performance.now(), done = run.advance(start + SLICE), tell = done || start - told > 300;
  if (tell) conclude();
  if (done) return;
  setTimeout(() => {
    if (run !== mine) return;
    compute(tell ? start : told);
    if (wish !== null) show(wish);
    else if (run.done) count();
  });
}

const total = () => run.done ? run.steps : run.limit;

function conclude() {                                       // what it has written in all, and whether it is right
  const error = run.firstError, length = bound.ids.length, ids = run.written;
  const ended = ids[ids.length - 1] === END, shown = ids.slice(0, Math.min(ids.length - ended, MOST_SHOWN));
  const say = part => part.map(id => glyph(bound, id)).join("");
  const answer = at("answer"), verdict = at("verdict");
  if (error < 0 || error >= shown.length) answer.replaceChildren(say(shown));
  else answer.replaceChildren(say(shown.slice(0, error)), made("span", { className: "wrong" }, mark(bound, shown[error])), say(shown.slice(error + 1)));
  if (ids.length - ended > shown.length) answer.append(" …");
  verdict.className = run.done ? error < 0 ? "good" : "bad" : "";
  const plural = length === 1 ? "symbol" : "symbols";
  if (!run.done) verdict.textContent = `At work: ${run.steps.toLocaleString("en")} of ${run.limit.toLocaleString("en")} steps.`;
  else if (error < 0) verdict.textContent = length ? `✓ Right: all ${length.toLocaleString("en")} ${plural}, and then the end marker.` : "✓ Right: there is nothing to write.";
  else verdict.textContent = `✗ Wrong from symbol ${(error + 1).toLocaleString("en")} on: it writes ${quoted(ids[error])} and should write ${quoted(run.wanted(error))}.`;
}

const quoted = id => id === END ? "the end marker &" : `“${mark(bound, id)}”`;

// ---- The step.

function show(step) {
  const place = Math.max(1, Math.min(total(), Math.round(step) || 1));
  wish = place > run.steps ? place : null;                  // it is shown as soon as it is known
  now = Math.min(place, run.steps);
  const n = now - 1, writing = n >= run.reading, said = run.said(n), k = n - run.reading;
  const symbol = writing ? run.written[k] : run.fed.at(n), error = run.firstError;
  at("status").textContent = sentence(n, writing, symbol);
  count();
  at("slider").setAttribute("aria-valuetext", `step ${now}, ${writing ? "writes" : "reads"} ${spoken(symbol)}`);
  at("back").disabled = now === 1;
  at("forth").disabled = now === total();
  for (const gate of ["push", "pop"]) {
    const value = run[gate].at(n), own = run[gate === "push" ? "wantedPush" : "wantedPop"].at(n);
    at(gate).textContent = number(value);
    at(`${gate}-own`).textContent = held[gate] === "free" ? "as the network decides" : `held; the network wants ${number(own)}`;
    at(`${gate}-bar`).style.transform = `scaleX(${value})`;
  }
  at("says-name").textContent = writing ? "Its choice for this symbol" : "If the text ended here";
  at("says").replaceChildren(...said.map(each => made("li", {},
    made("span", { className: "glyph" }, mark(bound, each.id)),
    odds(each.odds), made("span", { className: "number" }, percent(each.odds)))));
  tape("reads", run.reading, Math.min(n, run.reading), i => i === 0 ? START : bound.ids[i - 1]);
  const length = run.done ? Math.max(run.written.length, 1) : bound.ids.length + 1;
  tape("writes", Math.max(length, bound.ids.length + 1), k, i => i <= k ? run.written[i] ?? -1 : -1, i => run.written[i] !== run.wanted(i) && error >= 0);
  tape("wanted", bound.ids.length + 1, k, i => run.wanted(i));
  column(n, writing);
}

function count() {
  at("slider").max = total();
  at("slider").value = wish ?? now;
  at("count").textContent = `${now} / ${total()}`;
  at("forth").disabled = now === total();
}

const odds = share => { const bar = made("span", { className: "odds" }); bar.style.transform = `scaleX(${share})`; return bar; };
const percent = share => share > 0.9999 && share < 1 ? "> 99.99 %" : share < 0.0001 ? "< 0.01 %" : `${(100 * share).toFixed(2)} %`;
const spoken = id => id === START ? "the start marker" : id === END ? "the end" : id === SEPARATOR ? "the separator" : mark(bound, id);

function sentence(n, writing, symbol) {
  const does = writing ? symbol === END ? "writes &, the end marker" : `writes ${quoted(symbol)}`
    : symbol === START ? "reads the marker $ before the text" : `reads ${quoted(symbol)}`;
  const height = run.height.at(n), next = sees(n);
  const column = height > FAINT ? `The column is ${number(height)} high${next === null ? "" : `, and in its topmost unit the network sees ${quoted(next)}`}.`
    : "The column is empty.";
  return `Step ${now} of ${total()}: the network ${does}, pops ${number(run.pop.at(n))} and pushes ${number(run.push.at(n))}. ${column}`;
}

function lost(n, level) {                                   // the symbols that step n has drained, down to a level
  const marks = [];
  for (const each of run.elements(n - 1, FAINT)) {
    if (marks.length === 3 || each.bottom + each.strength <= level + FAINT) break;
    marks.push(mark(bound, run.fed.at(each.step)));
  }
  return marks.join(" ");
}

function sees(n) {                                          // what it writes for what it sees after step n; null if nobody knows
  if (run.height.at(n) <= FAINT) return null;
  if (n < run.reading) return run.said(n)[0].id;
  return n + 1 < run.steps ? run.written[n + 1 - run.reading] : null;
}

const hue = id => (id * 137.508 + 25) % 360;

function tape(id, length, place, symbol, off = () => false) {   // as many cells as there is room for, around a place
  const row = at(id), room = Math.max(1, Math.floor((row.clientWidth + 2) / (CELL + 2)));
  const first = Math.max(0, Math.min(length - room, place - Math.floor(room / 2)));
  while (row.children.length < Math.min(room, length)) row.append(made("span"));
  while (row.children.length > Math.min(room, length)) row.lastChild.remove();
  for (let cell = 0; cell < row.children.length; cell++) {
    const i = first + cell, span = row.children[cell], each = symbol(i), known = each >= 0;
    span.textContent = known ? mark(bound, each) : "";
    span.className = (i === place ? "now" : i < place ? "done tint" : "") + (known && i <= place && off(i) ? " off" : "");
    span.style.setProperty("--hue", hue(each));
  }
}
let CELL = 27.2;

// ---- The column. Only what can be seen of it has an element of the page, by the step that has poured it.

const liquid = new Map();

function column(n, writing) {
  const box = at("column"), tall = box.clientHeight, height = run.height.at(n), before = n ? run.height.at(n - 1) : 0;
  const most = Math.max(run.tallest, run.done ? 1 : bound.ids.length + 1);
  const unit = Math.max(SMALLEST_UNIT, Math.min(LARGEST_UNIT, (tall - 40) / (most + 0.4)));
  const room = (tall - 18) / unit, base = Math.max(0, height + 1.3 - room);   // the lowest height that is seen
  const y = value => tall - 14 - (value - base) * unit;
  const put = (element, bottom, top) => {
    element.style.transform = `translateY(${y(top)}px)`;
    element.style.height = `${(top - bottom) * unit}px`;
  };
  const kept = new Set();
  for (const each of run.elements(n, FAINT)) {
    if (each.bottom + each.strength < base - 1) break;
    kept.add(each.step);
    let element = liquid.get(each.step);
    if (!element) {
      const id = run.fed.at(each.step), label = made("span", {}, mark(bound, id));
      element = made("div", {}, label, made("small"));
      element.style.setProperty("--hue", hue(id));
      liquid.set(each.step, element);
      at("liquid").append(element);
    }
    put(element, each.bottom, each.bottom + each.strength);
    element.dataset.strength = each.strength;
    element.classList.toggle("new", each.step === n);
    element.firstChild.hidden = each.strength * unit < 13;
    element.lastChild.textContent = each.strength < 0.995 && each.strength * unit >= 13 ? number(each.strength) : "";
  }
  for (const [step, element] of liquid) if (!kept.has(step)) { element.remove(); liquid.delete(step); }
  ticks(base, room, most, y);
  const gone = before - Math.max(height, Math.max(0, before - run.pop.at(n)));
  at("drained").hidden = gone * unit < 4;
  put(at("drained"), before - gone, before);
  at("drained").textContent = gone * unit >= 16 ? `${lost(n, before - gone)} drained ${number(gone)}` : "";
  at("read").hidden = height <= FAINT;
  put(at("read"), Math.max(0, height - 1), height);
  const next = sees(n);
  at("read-says").replaceChildren(...(next === null ? ["it sees this"] : [writing ? "next it writes " : "it sees ", made("b", {}, next === END ? "&" : quoted(next))]));
  at("deeper").textContent = base > 0.005 ? `${number(base)} more below` : "";
  at("column").setAttribute("aria-label", `A column of height ${number(height)}`);
}

function ticks(base, room, most, y) {
  const from = Math.max(0, Math.ceil(base)), to = Math.floor(base + room), row = at("ticks"), wanted = Math.max(0, to - from + 1);
  while (row.children.length < wanted) row.append(made("div"));
  while (row.children.length > wanted) row.lastChild.remove();
  for (let i = 0; i < wanted; i++) {
    row.children[i].textContent = String(from + i);
    row.children[i].style.transform = `translateY(${y(from + i)}px)`;
  }
}

// ---- Playing, holding, sharing.

function play(wanted) {
  clearInterval(timer);
  timer = wanted ? setInterval(() => now < total() ? show(now + 1) : play(false), total() > LONG ? FAST : PACE) : null;
  at("play").setAttribute("aria-pressed", String(wanted));
  at("play").textContent = wanted ? "❚❚ Pause" : "▶ Play";
  at("status").setAttribute("aria-live", wanted ? "off" : "polite");
  if (!wanted) return;
  document.body.classList.add("moving");
  if (untouched || now === total()) show(1);
  untouched = false;
}

function go(step) {
  untouched = false;
  play(false);
  document.body.classList.toggle("moving", Math.abs(step - now) === 1);
  show(step);
}

function effects() {
  const parts = ["push", "pop"].filter(gate => held[gate] !== "free").map(gate => EFFECTS[gate][held[gate]]);
  at("held").textContent = parts.join(" ") || "Push and pop are the network’s two gates: hold one shut, half open or open, and see the answer break.";
}

for (const gate of ["push", "pop"])
  at(`hold-${gate}`).append(...HOLDS.map(([name, label]) => {
    const radio = made("input", { type: "radio", name: `hold-${gate}`, value: name, checked: name === "free" });
    radio.addEventListener("change", () => {
      held[gate] = name;
      play(false);
      effects();
      begin(now);
      share();
    });
    return made("label", {}, radio, label);
  }));

// The address carries the text, the gates that are held, and nothing else.
function share() {
  const parts = [`text=${encodeURIComponent(text)}`];
  for (const gate of ["push", "pop"]) if (held[gate] !== "free") parts.push(`${gate}=${held[gate]}`);
  try {
    history.replaceState(null, "", `#${parts.join("&")}`);
  } catch {
    return;                                                 // a browser may refuse, or refuse so many in a row
  }
}

function addressed() {
  const found = {};
  for (const part of location.hash.slice(1).split("&")) {
    const [key, ...rest] = part.split("=");
    try {
      found[key] = decodeURIComponent(rest.join("="));
    } catch {
      continue;                                             // no text in percent encoding
    }
  }
  return found;
}

function follow() {                                         // what the address says
  const found = addressed();
  text = found.text ?? data.text;
  for (const gate of ["push", "pop"]) {
    held[gate] = HOLDS.some(each => each[0] === found[gate]) ? found[gate] : "free";
    document.querySelector(`[name=hold-${gate}][value=${held[gate]}]`).checked = true;
  }
  at("text").value = text;
  effects();
  begin(Number(found.step) || undefined);
}

at("text").addEventListener("input", () => {
  play(false);
  text = at("text").value;
  untouched = true;
  begin();
  share();
});
at("link").addEventListener("click", async () => {
  share();
  const copied = await Promise.resolve(navigator.clipboard?.writeText(location.href)).then(() => Boolean(navigator.clipboard), () => false);
  at("linked").textContent = copied ? "Copied." : "It is in the address bar.";
});
at("slider").addEventListener("input", event => go(event.target.valueAsNumber));
at("back").addEventListener("click", () => go(now - 1));
at("forth").addEventListener("click", () => go(now + 1));
at("play").addEventListener("click", () => play(timer === null));
document.addEventListener("keydown", event => {
  const tag = event.target.tagName;
  if (event.ctrlKey || event.metaKey || event.altKey || tag === "TEXTAREA" || tag === "INPUT") return;
  const places = { ArrowRight: now + 1, ArrowLeft: now - 1 };
  if (event.key in places) {
    event.preventDefault();
    go(places[event.key]);
  } else if (event.key === " " && tag !== "BUTTON" && tag !== "SUMMARY") {
    event.preventDefault();
    play(timer === null);
  }
});
addEventListener("hashchange", follow);
addEventListener("resize", () => show(wish ?? now));

// ---- What is said of the model.

function describe() {
  const { margins } = model, { hidden, width, layers, symbols } = model.network;
  at("model").hidden = model === packaged;
  at("model").textContent = `At work: ${model.name}, which knows ${symbols} symbols.`;
  const exact = "While it reads, push is exactly 1 and pop exactly 0; while it writes, push is exactly 0 and pop exactly 1. So the column holds "
    + "precisely the symbols, one unit each, and however long the text is, the network only ever deals with the one on top. ";
  at("proof").textContent = exact + (margins
    ? `That this holds for every text, and not only for those that were tried, is proved: boxes enclose all states that the network can ever be in, no step leads out of them, `
      + `and within them every gate is at least ${number(Math.min(margins.encoder_push, margins.encoder_pop, margins.decoder_push, margins.decoder_pop))} past the point `
      + `from which it is exactly 0 or 1, and the right symbol leads every other by at least ${number(margins.logits)}. The theorem is in docs/proof.md.`
    : "Whether that holds for every text can be proved by boxes that enclose all states which the network can ever be in; for these weights there is no such proof here. "
      + "“stackrev certify” looks for one, and docs/proof.md has the theorem.");
  at("about").textContent = `The model is ${model.name}: an LSTM of ${hidden} units${layers > 1 ? ` in each of ${layers} layers` : ""} with a stack of vectors of ${width} numbers, `
    + `after Grefenstette and others, “Learning to Transduce with Unbounded Memory” (2015). Everything runs in this page, which sends nothing anywhere.`;
}

describe();
follow();
