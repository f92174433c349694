// The few ways in which this page makes elements. Text from people only ever
// becomes a text node.

import { mentions } from "./mentions.js";

export const byID = (id) => document.getElementById(id);

// el makes an element: properties, then children (nodes or text).
export function el(tag, props = {}, ...children) {
  const node = Object.assign(document.createElement(tag), props);
  node.append(...children.filter((c) => c !== null && c !== undefined));
  return node;
}

// show hides or shows, and says whether it shows.
export function show(node, visible) {
  node.hidden = !visible;
  return visible;
}

// say sets text only where it differs, so that a live region does not repeat
// itself.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// coalesce makes a function that may be called for every change and runs once a
// frame. A hidden page gets no frames; there it runs a few times a second.
export function coalesce(f) {
  let waiting = false;
  return () => {
    if (waiting) return;
    waiting = true;
    const run = () => ((waiting = false), f());
    if (document.hidden) setTimeout(run, 200);
    else requestAnimationFrame(run);
  };
}

const LINK = /https?:\/\/[^\s<>"'`]+[^\s<>"'`.,;:!?)\]}]/g;

// written is a text of a person as nodes: its web addresses as links, names that
// it mentions set off, and our own the more.
export function written(text, me) {
  const parts = [];
  for (const m of text.matchAll(LINK)) {
    if (URL.canParse(m[0])) parts.push({ from: m.index, to: m.index + m[0].length, node: link(m[0]) });
  }
  for (const m of mentions(text)) {
    if (!parts.some((p) => p.from < m.to && m.from < p.to)) parts.push({ ...m, node: name(text.slice(m.from, m.to), m.name === me) });
  }
  parts.sort((a, b) => a.from - b.from);
  const nodes = [];
  let from = 0;
  for (const p of parts) {
    nodes.push(text.slice(from, p.from), p.node);
    from = p.to;
  }
  nodes.push(text.slice(from));
  return nodes;
}

const link = (href) => el("a", { href, target: "_blank", rel: "noopener noreferrer nofollow" }, href);
const name = (text, mine) => el(mine ? "mark" : "span", { className: "mention" }, text);

// avatar is a disc with the first letter of a name, in a colour of its own.
export function avatar(node, name) {
  let h = 0x811c9dc5; // FNV-1a
  for (const c of name) h = Math.imul(h ^ c.codePointAt(0), 0x01000193);
  node.className = `avatar hue-${(h >>> 0) % 8}`;
  say(node, [...name][0]?.toUpperCase() ?? "?");
  return node;
}

const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const date = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

export const timeOf = (ts) => el("time", { dateTime: new Date(ts).toISOString(), title: full.format(ts) }, clock.format(ts));

export function dayOf(ts) {
  const days = Math.round((new Date().setHours(0, 0, 0, 0) - new Date(ts).setHours(0, 0, 0, 0)) / 86_400_000);
  return days === 0 ? "Today" : days === 1 ? "Yesterday" : date.format(ts);
}
