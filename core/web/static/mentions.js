// Whom a text mentions, by the rule of docs/protocol.md, "Mentions", and the name
// that is being typed. Nothing here touches the document.

const NAME = "\\p{L}\\p{Nd}\\p{M}\\-_.@+:"; // what names may have
const MENTION = new RegExp(`(?<![${NAME}])@([${NAME}]*)`, "gu");
const TYPED = new RegExp(`(?<![${NAME}])@([${NAME}]*)$`, "u");
const TRAILING = /[.:\-+@]+$/; // punctuation at the end of a name
const BEGINS = /^[\p{L}\p{Nd}]/u;
const NAME_BYTES = 64;
const MOST = 10; // people whom one text mentions; what comes after is text

const valid = (name) => BEGINS.test(name) && new TextEncoder().encode(name).length <= NAME_BYTES;

// mentions is where a text mentions somebody: [{name, from, to}], in its order.
export function mentions(text) {
  const found = [];
  const names = new Set();
  for (const m of text.matchAll(MENTION)) {
    const name = m[1].replace(TRAILING, "");
    if (!valid(name) || (names.size === MOST && !names.has(name))) continue;
    names.add(name);
    found.push({ name, from: m.index, to: m.index + 1 + name.length });
  }
  return found;
}

// mentioned says whether a message is addressed to a person by name.
export const mentioned = (e, user) => e.type === "message" && e.from !== user && mentions(e.text ?? "").some((m) => m.name === user);

// typedName is the beginning of a name right before the place in a text:
// {start, from}, from being where its "@" stands, or null.
export function typedName(text, at) {
  const m = text.slice(0, at).match(TYPED);
  return m && { start: m[1], from: m.index };
}

// candidates are the names that a beginning may become, the best first.
export function candidates(start, names, most) {
  const fold = (s) => s.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const wanted = fold(start);
  return [...new Set(names)].filter((n) => fold(n).startsWith(wanted)).slice(0, most);
}
