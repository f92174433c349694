// The conversation as a list of elements. It draws one Room, keeps the place a
// reader is at, and reuses an element for as long as its message is shown, so
// that a screen reader hears each message once.

import { avatar, byID, coalesce, dayOf, el, say, show, timeOf, written } from "./dom.js";
import { mentioned } from "./mentions.js";
import { Rove } from "./rove.js";
import { change, erasure, explain, obstacles, sources, verdict, why } from "./words.js";

const GROUP_WITHIN = 5 * 60_000; // ms between messages shown under one name
const NEAR_END = 80; // px from the end that count as "at the end"

export class LogView {
  #scroll = byID("scroll");
  #log = byID("log");
  #shown = new Map(); // key -> {node, ...parts, mark}
  #room = null;
  #following = true; // the reader is at the end and wants to stay there
  #actions;
  #rove = new Rove(this.#log, ".message");

  // actions: {resend(m), appeal(m), why(m), edit(m), discard(m), erase(seq), manage(type, name), older(), latest(), read()}
  constructor(actions) {
    this.#actions = actions;
    this.#scroll.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    byID("older-button").addEventListener("click", () => actions.older());
    byID("latest").addEventListener("click", () => this.toEnd());
    new ResizeObserver(() => this.#following && this.#pin()).observe(this.#scroll);
  }

  // atEnd says whether the newest message is in front of the reader.
  get atEnd() {
    return this.#following && !document.hidden && !this.#room?.behind;
  }

  open(room) {
    this.#room = room;
    this.#following = true;
    this.#shown.clear();
    this.#log.replaceChildren();
    this.draw();
  }

  toEnd() {
    this.#following = true;
    if (this.#room?.behind) this.#actions.latest();
    else this.draw();
    byID("text").focus({ preventScroll: true });
  }

  follow() {
    this.#following = true;
  }

  draw = coalesce(() => this.#draw());

  #draw() {
    const room = this.#room;
    if (!room) return;
    const anchor = this.#following ? null : this.#anchor();
    this.#log.setAttribute("aria-busy", String(Boolean(room.loading)));
    this.#reconcile(items(room));
    this.#rove.settle();
    this.#edges(room);
    if (this.#following) this.#pin();
    else if (anchor?.node.isConnected) this.#scroll.scrollTop += anchor.node.getBoundingClientRect().top - anchor.top;
    if (this.atEnd) this.#actions.read();
  }

  #pin() {
    this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  // anchor is the first message in sight and where it is. (A day's heading
  // moves up when older messages of that day come in.)
  #anchor() {
    const edge = this.#scroll.getBoundingClientRect().top;
    for (const node of this.#log.querySelectorAll(".message")) {
      const box = node.getBoundingClientRect();
      if (box.bottom > edge) return { node, top: box.top };
    }
    return null;
  }

  #scrolled() {
    const s = this.#scroll;
    const was = this.#following;
    this.#following = s.scrollHeight - s.scrollTop - s.clientHeight < NEAR_END;
    if (s.scrollTop < NEAR_END && !this.#following && this.#room?.older) this.#actions.older();
    if (was !== this.#following) this.draw();
  }

  #edges(room) {
    const some = room.entries.length + room.mine.size > 0;
    show(byID("older-button"), room.joined && room.older && !room.loading && (some || room.problem));
    say(byID("older-button"), room.problem ? "Try to load messages again" : "Show earlier messages");
    const start = byID("beginning");
    say(start, room.problem ? explain(room.problem).text : room.loading ? "Loading…" : "This is where the conversation begins.");
    show(start, Boolean(room.problem || room.loading || (room.joined && !room.older && some)));
    if (show(byID("empty"), !some && !room.loading && !room.problem)) say(byID("empty"), emptiness(room));
    const latest = byID("latest");
    if (show(latest, some && (room.behind || !this.#following))) {
      say(latest, room.unread ? `${room.unread} new ${room.unread === 1 ? "message" : "messages"} ↓` : "Back to the latest ↓");
    }
  }

  // reconcile makes the list equal to the items with the fewest moves.
  #reconcile(list) {
    const keys = new Set(list.map((i) => i.key));
    for (const [key, { node }] of this.#shown) {
      if (keys.has(key)) continue;
      node.remove();
      this.#shown.delete(key);
    }
    let at = this.#log.firstChild;
    for (const item of list) {
      let part = this.#shown.get(item.key);
      if (!part) this.#shown.set(item.key, (part = this.#make(item)));
      if (item.kind === "message") this.#fill(part, item);
      if (part.node === at) at = at.nextSibling;
      else this.#log.insertBefore(part.node, at);
    }
  }

  #make(item) {
    if (item.kind !== "message") return { node: el("div", { className: item.kind }, el("span", {}, item.text), item.lift ? this.#lift(item.lift) : "") };
    const part = {
      node: el("div", { role: "article", tabIndex: -1, ariaLabel: label(item) }),
      head: el("p", { className: "head" }, el("b", {}, item.from), timeOf(item.ts)),
      text: el("p", { className: "text", dir: "auto" }),
      foot: el("div", { className: "foot" }),
      acts: el("div", { className: "do" }),
    };
    const face = avatar(el("span", { ariaHidden: "true" }), item.from);
    part.node.append(face, el("div", { className: "body" }, part.head, part.text, part.foot), part.acts);
    return part;
  }

  // lift is the way back from a ban or a mute, for those who may.
  #lift({ type, user }) {
    const b = el("button", { type: "button", className: "link", ariaLabel: `Lift this for ${user}` }, "Lift");
    b.addEventListener("click", () => this.#actions.manage(type, user));
    return b;
  }

  #fill(part, item) {
    const { m, redacted, reasons } = item;
    const mark = JSON.stringify([item.text, item.erased, item.calls, item.grouped, item.state, redacted, reasons, m?.error?.code, m?.why, item.erasable]);
    if (part.mark === mark) return;
    part.mark = mark;
    part.node.className = ["message", item.own && "own", item.grouped && "grouped", item.calls && "calls", item.state].filter(Boolean).join(" ");
    part.head.classList.toggle("sr", item.grouped);
    if (part.text.textContent !== item.text) part.text.replaceChildren(...written(item.text, this.#room.client.user));
    const held = part.foot.contains(document.activeElement) && document.activeElement.textContent;
    part.foot.replaceChildren(...this.#foot(item));
    this.#offer(part.acts, item);
    if (held) [...part.foot.querySelectorAll("button")].find((b) => b.textContent === held)?.focus();
  }

  // offer is a way to erase a message, for good: so it is asked twice. It shows
  // while the focus is in the message, so the message has it in between.
  #offer(acts, item) {
    const message = acts.parentNode;
    const button = (text, act) => {
      const b = el("button", { type: "button", className: "link" }, text);
      b.addEventListener("click", act);
      return b;
    };
    const swap = (nodes, had) => {
      if (had) message.focus({ preventScroll: true });
      acts.replaceChildren(...nodes);
      if (had) nodes.at(-1)?.focus();
    };
    const erase = button("Erase", () => swap([el("span", {}, "Erase it for everybody, for good?"), button("Yes, erase", () => (swap([erase], true), this.#actions.erase(item.seq))), button("Keep it", () => swap([erase], true))], true));
    erase.ariaLabel = `Erase the message of ${label(item)}`;
    swap(item.erasable ? [erase] : [], acts.contains(document.activeElement));
  }

  #foot(item) {
    const called = item.calls ? [el("span", { className: "tag call" }, "Mentions you")] : [];
    return [...called, ...this.#state(item)];
  }

  // state says what became of a message that is not simply there.
  #state({ m, from, own, state, redacted, reasons, erased }) {
    if (erased) return [el("span", { className: "quiet" }, erasure(erased, from)), erased.ts ? timeOf(erased.ts) : ""];
    if (state === "failed") return this.#failure(m);
    if (state === "pending") return [el("span", { className: "quiet" }, "Sending…")];
    if (state === "held") {
      const rule = sources(reasons ?? []);
      return [
        el("span", { className: "tag" }, "Waiting for review"),
        el("span", {}, [why(reasons), "Only moderators and you see it until somebody has looked."].filter(Boolean).join(" ")),
        rule ? el("span", { className: "rule" }, rule) : "",
      ];
    }
    if (!redacted) return [];
    const said = why(reasons) || "Parts of this message were hidden by moderation.";
    const rule = sources(reasons ?? []);
    return [
      el("span", { className: "tag" }, own ? "Parts hidden" : "Moderated"),
      el("span", {}, said),
      rule && own ? el("span", { className: "rule" }, rule) : "",
    ];
  }

  #failure(m) {
    const { text, source } = explain(m.error);
    const button = (label, act) => {
      const b = el("button", { type: "button", className: "link" }, label);
      b.addEventListener("click", () => this.#actions[act](m));
      return b;
    };
    return [
      el("span", { className: "tag bad" }, m.error.code === "unknown" ? "Not confirmed" : m.error.code === "rejected" ? "Rejected" : "Not posted"),
      el("span", {}, text),
      source ? el("span", { className: "rule" }, source) : "",
      el("span", { className: "acts" }, m.error.retryable ? button("Send again", "resend") : "", m.error.appeal ? button("Ask a moderator", "appeal") : "", ["unknown", "rejected", "expired"].includes(m.error.code) ? "" : button("Why?", "why"), button("Edit", "edit"), button("Discard", "discard")),
      m.why ? because(m) : "",
    ];
  }
}

// because is what the server answered to "Why?": what stands in the way, what
// would change it, and the decision's name for who asks an operator.
function because({ why: e, error }) {
  const lines = e.blocks
    ? obstacles(e).map((o) => el("li", {}, el("span", {}, o.text), o.change ? el("span", {}, " " + o.change) : "", el("span", { className: "rule" }, o.source)))
    : [];
  return el("div", { className: "because", role: "status" },
    el("p", {}, e.blocks ? verdict(e) : e.code === "unknown_type" ? "This server is older and cannot say more." : explain(e).text),
    lines.length ? el("ul", {}, ...lines) : "",
    error.decision ? el("p", {}, "Operators find this decision as ", el("code", {}, error.decision), ".") : "");
}

// label is what a screen reader calls a message: whose it is and of when.
const label = ({ from, ts }) => `${from}, ${timeOf(ts).textContent}`;

// liftable is what would lift the ban or mute that an entry speaks.
function liftable(e) {
  const c = (e.changes ?? []).find((c) => c.value && /^(ban|mute)\//.test(c.key));
  return c ? { type: "un" + c.key.split("/")[0], user: c.key.slice(c.key.indexOf("/") + 1) } : null;
}

// items is what is drawn of a room, in order.
function items(room) {
  const list = [];
  let day = "";
  let last = null;
  const message = (x) => {
    const today = dayOf(x.ts);
    if (today !== day) {
      list.push({ key: "day " + today, kind: "day", text: today });
      last = null;
    }
    day = today;
    if (x.seq && x.seq === room.unreadFrom) {
      list.push({ key: "new", kind: "new", text: "New" });
      last = null;
    }
    const grouped = last?.from === x.from && x.ts - last.ts < GROUP_WITHIN;
    list.push({ ...x, kind: "message", grouped });
    last = x;
  };
  const me = room.client.user;
  for (const e of room.entries) {
    if (e.type === "message") {
      const own = e.from === me;
      message({ key: own && e.nonce ? "mine " + e.nonce : "seq " + e.seq, seq: e.seq, from: e.from, ts: e.ts, text: e.text ?? "", erased: e.erased && (room.erasures.get(e.seq) ?? {}),
        own, calls: mentioned(e, me), erasable: !e.erased && (own || room.runs), redacted: e.outcome === "redacted", reasons: e.reasons, state: "" });
      continue;
    }
    const text = change(e);
    if (text) list.push({ key: "seq " + e.seq, kind: "event", text, lift: room.runs ? liftable(e) : null });
    last = null;
  }
  for (const m of room.mine.values()) {
    message({ key: "mine " + m.nonce, from: me, ts: m.ts, text: m.text, own: true, m, state: m.state === "posted" ? "" : m.state,
      redacted: m.outcome === "redacted", reasons: m.reasons });
  }
  return list;
}

function emptiness(room) {
  if (room.denied) return "You are not in this room. " + explain(room.denied).text;
  if (!room.joined) return "Joining…";
  return "Nothing has been said here yet. Write the first message.";
}
