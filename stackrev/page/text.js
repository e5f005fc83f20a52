// Any text as symbols, as stackrev/tasks/text.py binds them: a text of ASCII code by code; any other by user-perceived
// characters, of which those that are not ASCII borrow symbols that the text leaves unused.
"use strict";

const ASCII = 128;
const MARKERS = ["$", "|", "&"];

class Refused extends Error {}

function clusters(text) {
  if (/^[\x00-\x7f]*$/.test(text)) return [...text];
  if (!("Segmenter" in Intl)) return [...text];
  return Array.from(new Intl.Segmenter("en", { granularity: "grapheme" }).segment(text), each => each.segment);
}

// The symbols of a text, and what each stands for. A network with fewer symbols than ASCII has gives them out in the
// order in which characters come.
function bind(text, symbols) {
  if (/[\ud800-\udfff]/u.test(text)) throw new Refused("The text has half a surrogate pair.");
  const parts = clusters(text), distinct = new Set(parts), stands = each => symbols >= ASCII && each.length === 1 && each < "\x80";
  if (distinct.size > symbols)
    throw new Refused(`The text has ${distinct.size} different characters, and the network has ${symbols} symbols: reverse it in parts.`);
  const place = new Map(), glyphs = [...MARKERS];
  let unused = 0;
  for (const each of distinct) {
    let symbol = each.charCodeAt(0);
    if (!stands(each)) {
      while (symbols >= ASCII && distinct.has(String.fromCharCode(unused))) unused++;
      symbol = unused++;
    }
    place.set(each, FIRST_SYMBOL + symbol);
    glyphs[FIRST_SYMBOL + symbol] = each;
  }
  return { ids: parts.map(each => place.get(each)), glyphs, symbols };
}

// What a symbol stands for, in plain text. One that the text does not have keeps its own ASCII character, if it has one.
function glyph(bound, id) {
  return bound.glyphs[id] ?? (bound.symbols >= ASCII ? String.fromCharCode(id - FIRST_SYMBOL) : "?");
}

// The same as a mark that can be seen.
function mark(bound, id) {
  const text = glyph(bound, id), code = text.codePointAt(0);
  if (text === " ") return "␣";
  if (text === "\r\n") return "␍␊";
  if (code < 0x20 && text.length === 1) return String.fromCharCode(0x2400 + code);
  if (code === 0x7f) return "␡";
  if (/^[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Zs}\p{Default_Ignorable_Code_Point}]+$/u.test(text))
    return `‹${code.toString(16).toUpperCase().padStart(2, "0")}›`;
  return text;
}
