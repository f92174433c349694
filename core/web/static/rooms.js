// What the page knows of one room: a window of its log, our messages on their
// way, who is here, what is unread. No part of it touches the document.

import { refused, rejection } from "./client.js";
import { mentioned } from "./mentions.js";

// WINDOW bounds the entries kept of a room, and so the size of the page.
export const WINDOW = 500;
const PAGE = 50; // entries of one history request
const WRITING_FOR = 5_000; // ms after which somebody writes no more who has not said so again
const UNSENT = 100; // of our messages without an entry; failed ones stay until dismissed
const ERASURES = 1000; // messages of which we know who erased them
const COUNTED = 100; // unread entries that are looked at when a room is entered

export class Room {
  entries = []; // a run of the log without holes, rising seq
  mine = new Map(); // nonce -> our message, until its entry is here or it is dismissed
  members = null; // Set of names, or null where the server names nobody
  count = 0;
  stale = false; // the names are not what the count speaks of: ask
  title = "";
  partner = ""; // the other person, where the room is one of two
  mode = "open";
  visibility = "public";
  slow = 0; // seconds between two messages of one user
  role = ""; // our own in this room
  runs = false; // we may act on people here
  joined = false;
  denied = null; // the error that answered join
  head = null; // {epoch, seq} of the newest entry
  unread = 0;
  calls = 0; // how many of the unread mention us
  unseen = 0; // how many of the newest entries are unread where nobody remembers what was read
  uncounted = false; // there are more unread than were looked at
  unreadFrom = 0; // seq of the first unread entry; the view draws a line there
  erasures = new Map(); // seq of an erased message -> {by, ts, text}: who did it, when and why
  older = true; // there may be entries before the window
  behind = false; // newer entries were let go: the window is not at the log's end
  loading = null;
  #typists = new Map(); // who writes -> until when
  queue = null; // the reviews that wait, where we decide about them
  #generation = 0; // answers to history asked for before a reset are dropped

  // label is what the room is called for people.
  get label() {
    return this.title || this.partner || this.name;
  }

  // forTwo says whether this is a room of two people.
  get forTwo() {
    return this.name.startsWith("dm:");
  }

  // names are the people who may be meant here: who is here, then who wrote last.
  get names() {
    const here = [...(this.members ?? [])].sort((a, b) => a.localeCompare(b));
    const wrote = this.entries.filter((e) => e.type === "message").map((e) => e.from).reverse();
    return [...new Set([...here, ...wrote])].filter((name) => name !== this.client.user);
  }

  constructor(name, client) {
    this.name = name;
    this.client = client;
  }

  // entered takes a joined event. What is kept continues without a gap unless
  // the event says fresh.
  entered(e) {
    Object.assign(this, { joined: true, denied: null, title: e.title ?? "", mode: e.mode, visibility: e.visibility ?? "public", slow: e.slow_mode_s ?? 0, role: e.role ?? "", count: e.count });
    this.head = e.fresh ? { epoch: e.epoch, seq: e.seq } : this.head;
    if (e.fresh) this.forget();
  }

  // forget empties the window; our unanswered messages stay.
  forget() {
    this.#generation++;
    Object.assign(this, { entries: [], older: true, behind: false, loading: null, unreadFrom: 0 });
    this.erasures.clear();
  }

  // take adds a live entry and says whether it is in the window now.
  take(e) {
    this.head = { ...this.head, seq: e.seq };
    this.#settle(e);
    this.#meet(e);
    this.#configure(e.changes);
    if (e.type === "erase") this.#erase(e);
    this.#typists.delete(e.from);
    if (this.behind) return false;
    this.entries.push(e);
    if (this.entries.length > WINDOW) {
      this.entries.splice(0, this.entries.length - WINDOW);
      this.older = true;
    }
    return true;
  }

  // settle joins one of our messages with its entry, keeping the reasons that
  // only its ack carries.
  #settle(e) {
    const m = e.nonce && e.from === this.client.user && this.mine.get(e.nonce);
    if (!m) return;
    e.reasons ??= m.reasons;
    e.mine = m;
    this.mine.delete(e.nonce);
  }

  // missed takes a live entry that nobody has looked at.
  missed(e) {
    if (e.type !== "message" || e.from === this.client.user) return;
    if (this.unread++ === 0) this.unreadFrom = e.seq;
    if (mentioned(e, this.client.user)) this.calls++;
  }

  // reckon asks how much was written since a mark, up to the newest entry of this
  // moment; what comes later is missed or seen as it comes.
  async reckon(mark) {
    const { epoch, seq } = this.head;
    const after = mark.epoch === epoch || mark.seq <= seq ? mark.seq : 0; // another epoch keeps what survived
    if (after >= seq) return;
    const limit = Math.min(COUNTED, this.client.limits.history_entries || COUNTED);
    const h = await this.client.history(this.name, { after, limit });
    if (this.head.epoch !== epoch) return;
    const news = h.entries.filter((e) => e.seq <= seq && e.type === "message" && e.from !== this.client.user);
    this.uncounted = Boolean(h.more);
    if (news.length === 0) return;
    this.unread += news.length;
    this.calls += news.filter((e) => mentioned(e, this.client.user)).length;
    this.unreadFrom = news[0].seq;
  }

  // read says that somebody has looked at all there is.
  read() {
    Object.assign(this, { unread: 0, calls: 0, uncounted: false });
  }

  // meet finds the other person of a room of two in the entry that gave them
  // their roles.
  #meet(e) {
    if (!this.forTwo || this.partner) return;
    const roles = (e.changes ?? []).filter((c) => c.key.startsWith("role/") && c.value).map((c) => c.key.slice("role/".length));
    this.partner = roles.find((name) => name !== this.client.user) ?? "";
  }

  // erase forgets what was written in entries that are in the window; those
  // that are read later come without it.
  #erase({ erases = [], from, ts, text }) {
    for (const seq of erases) {
      this.erasures.delete(seq);
      this.erasures.set(seq, { by: from, ts, text });
    }
    for (const seq of [...this.erasures.keys()].slice(0, -ERASURES)) this.erasures.delete(seq);
    const seqs = new Set(erases);
    for (const e of this.entries) {
      if (!seqs.has(e.seq)) continue;
      if (e.mine) this.mine.delete(e.mine.nonce);
      for (const key of ["text", "reasons", "outcome", "mine"]) delete e[key];
      e.erased = true;
    }
  }

  #configure(changes = []) {
    for (const c of changes) {
      if (c.key === "role/" + this.client.user) this.role = c.value ?? "";
      if (c.key !== "settings") continue;
      const s = c.value ?? {};
      Object.assign(this, { title: s.title ?? "", mode: s.mode ?? "open", visibility: s.visibility ?? "public", slow: s.slow_mode_s ?? 0 });
    }
  }

  // latest reads the newest page; used after a fresh join, a reset, and to
  // come back to the end of the log.
  latest() {
    const seen = this.behind ? [] : this.entries;
    this.#generation++;
    Object.assign(this, { entries: seen, behind: false, loading: null });
    return this.#read({});
  }

  // earlier reads the page before the window. Entries at the far end are let
  // go when the window would grow too large.
  earlier() {
    if (!this.older) return Promise.resolve();
    return this.#read(this.entries.length ? { before: this.entries[0].seq } : {});
  }

  #read(range) {
    if (this.loading) return this.loading;
    const generation = this.#generation;
    const limit = Math.min(PAGE, this.client.limits.history_entries || PAGE);
    const done = this.client.history(this.name, { ...range, limit }).then(
      (h) => generation === this.#generation && this.#merge(h),
    );
    this.loading = done.finally(() => generation === this.#generation && (this.loading = null));
    return this.loading;
  }

  #merge(h) {
    const have = new Set(this.entries.map((e) => e.seq));
    const older = h.entries.filter((e) => !have.has(e.seq));
    for (const e of older) {
      this.#settle(e);
      this.#meet(e);
      if (e.type === "erase") this.#erase(e);
    }
    this.entries = [...older, ...this.entries].sort((a, b) => a.seq - b.seq);
    this.older = h.more;
    if (this.entries.length > WINDOW) {
      this.entries.length = WINDOW;
      this.behind = true;
    }
  }

  // answered takes a message of ours whose state changed.
  answered(m) {
    const e = this.entries.findLast((e) => e.mine === m || (m.seq && e.seq === m.seq));
    if (e) Object.assign(e, { mine: m, reasons: m.reasons });
    // A posted message stays until its entry is here, unless the window is
    // elsewhere in the log.
    const passed = m.seq && (this.behind || this.entries.at(-1)?.seq >= m.seq);
    this.mine.delete(m.nonce);
    if (!e && !(m.state === "posted" && passed)) this.mine.set(m.nonce, m);
    if (this.mine.size > UNSENT) this.mine.delete(this.mine.keys().next().value);
  }

  // reviewed takes a reviews answer: what we wrote and somebody has still to look
  // at, here or in another tab, is shown with what we sent.
  reviewed(e) {
    for (const r of e.open ?? []) {
      if (r.from !== this.client.user || this.mine.has(r.nonce)) continue;
      this.mine.set(r.nonce, { room: this.name, nonce: r.nonce, text: r.text, ts: r.ts, state: "held", outcome: "held", reasons: r.reasons ?? [], review: r.review_id });
    }
    for (const r of e.decided ?? []) this.decided(r);
    this.queue = e.all ? e.open : null;
  }

  // decided takes a decision about a message of ours and returns the message
  // where it was rejected or has expired; an approved one comes as an entry.
  decided(r) {
    const m = this.mine.get(r.nonce);
    if (r.from !== this.client.user || m?.state !== "held" || m.review !== r.review_id) return null;
    if (!refused(r.outcome)) return null;
    Object.assign(m, { state: "failed", error: rejection(r), reasons: r.reasons ?? [] });
    return m;
  }

  // write adds a message that has just been sent.
  write(m) {
    this.mine.set(m.nonce, m);
  }

  dismiss(m) {
    this.mine.delete(m.nonce);
  }

  // here takes a members answer, presence a presence event.
  here(e) {
    this.count = e.count;
    this.stale = false;
    this.members = e.users ? new Set(e.users) : null;
  }

  presence(e) {
    this.count = e.count;
    if (e.event === "count") this.stale = true; // somebody came or went who is not named
    else if (e.event === "join") this.members?.add(e.user);
    else this.members?.delete(e.user);
    if (e.event === "leave") this.#typists.delete(e.user);
  }

  // typing takes a typing event; writing is who writes now, the first first.
  typing(e, now = Date.now()) {
    if (e.user !== this.client.user) this.#typists.set(e.user, now + WRITING_FOR);
  }

  writing(now = Date.now()) {
    for (const [user, until] of this.#typists) if (until <= now) this.#typists.delete(user);
    return [...this.#typists.keys()];
  }
}
