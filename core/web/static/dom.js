// The few ways in which this page makes elements. Text from people only ever
// becomes a text node.

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

// linked is the text with its web addresses as links.
export function linked(text) {
  const nodes = [];
  let from = 0;
  for (const found of text.matchAll(LINK)) {
    if (!URL.canParse(found[0])) continue;
    nodes.push(text.slice(from, found.index));
    nodes.push(el("a", { href: found[0], target: "_blank", rel: "noopener noreferrer nofollow" }, found[0]));
    from = found.index + found[0].length;
  }
  nodes.push(text.slice(from));
  return nodes;
}

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
