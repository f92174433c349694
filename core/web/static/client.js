// A client of Parley's protocol v1 (docs/protocol.md, docs/delivery.md). It
// knows nothing of the page: it keeps one connection, one position for each
// room and the messages that wait for their answer, and says what happens as
// events, each with its data in event.detail:
//
//   state     {state, reason, code, retryAt}   "connecting", "online", "waiting" or "stopped"
//   welcome   the welcome event
//   refused   the error that ended the attempt to say hello
//   joined    {...the joined event, fresh}     fresh: forget the room's log, read history
//   left      the left event: we were put out of the room, and why
//   denied    the error that answered a join
//   reset     {room}                           forget the room's log, read history
//   entry     one entry of a room's log, in order, once
//   presence  the presence event
//   direct    {room, user, new}                somebody has written to us in a room of two that we are not in
//   typing    {room, user}                     somebody else writes there
//   outgoing  one message of ours whose state changed, see send()
//   expiring  {ends}                           our token ends soon, at that time in Unix ms
//   review    a held message was decided, or the queue we look at has changed

const HELLO_TIMEOUT = 10_000; // ms from dialing to the welcome
const PROBE_TIMEOUT = 5_000; // ms a ping may stay unanswered
const REPLY_TIMEOUT = 15_000; // ms a history or members command may take
const STABLE_AFTER = 10_000; // ms welcomed before failed attempts are forgotten
const BACKOFF_BASE = 500; // ms
const BACKOFF_MAX = 30_000; // ms
const RESEND_FOR = 5 * 60_000; // ms; half of the server's idempotency window (10 min by default)
const MAX_OUTGOING = 50; // unanswered messages
const RENEW_BEFORE = 5 * 60_000; // ms before our token ends that we say so
const TYPING_EVERY = 3_000; // ms between two words that we write in a room
const TYPING_REFUSED = 60_000; // the same after one was refused
const MAX_RETRIES = 4; // of a send that the server asked to repeat

const UNCONFIRMED = { code: "unknown", text: "it is not known whether this message was posted", retryable: true };

// Codes of an answered send after which the client tries again by itself.
const TRANSIENT = new Set(["rate_limited", "overloaded", "unavailable"]);

// reconnects says whether a close code asks to reconnect (docs/protocol.md).
export function reconnects(code) {
  return code === 1001 || code === 1006 || code === 1011 || code === 1012 || code === 4009 || (code >= 4500 && code < 5000);
}

// backoff is a random wait in ms before attempt n in a row (n from 0).
export function backoff(n, random = Math.random) {
  return random() * Math.min(BACKOFF_MAX, BACKOFF_BASE * 2 ** n);
}

// nonce names one message for ever. (crypto.randomUUID needs a secure page,
// and a server on the local network has none.)
function nonce() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (b) => b.toString(16).padStart(2, "0")).join("");
}

// refused says that what was held will not be posted; rejection is that as the
// error that a message ended with.
export const refused = (outcome) => outcome === "rejected" || outcome === "expired";

export function rejection(e) {
  return { code: e.outcome, reasons: (e.reasons ?? []).filter((r) => r.text), retryable: false };
}

export class Client extends EventTarget {
  #url;
  #identity = null; // {token} or {guest, secret}
  #socket = null;
  #rooms = new Map(); // room -> {position: {epoch, seq, id} or null, joined}
  #requests = new Map(); // command id -> {resolve, reject}
  #joins = new Map(); // command id -> the rooms it asked for
  #outgoing = new Map(); // nonce -> message, in the order they were written
  #nextID = 1;
  #attempts = 0;
  #lastHeard = 0;
  #greeting = false;
  #timers = new Map(); // name -> timeout

  constructor(url) {
    super();
    this.#url = url;
    this.state = "stopped";
    this.user = "";
    this.limits = {};
    addEventListener("online", () => this.retryNow());
    addEventListener("offline", () => this.#probe());
    addEventListener("pageshow", () => this.#probe());
    document.addEventListener("visibilitychange", () => document.hidden || this.#probe());
  }

  // start connects as the identity and stays connected until stop, or until
  // the server says that trying again cannot help.
  start(identity) {
    this.#identity = { ...identity };
    this.#attempts = 0;
    this.#dial();
  }

  // stop says goodbye and forgets everything but the rooms' names. Messages
  // without an answer fail as not confirmed.
  stop() {
    this.#drop();
    for (const r of this.#rooms.values()) r.position = null;
    for (const m of this.#outgoing.values()) this.#fail(m, UNCONFIRMED);
    this.#set("stopped");
  }

  // retryNow ends a wait for the next attempt.
  retryNow() {
    if (this.state === "waiting") this.#dial();
  }

  // join enters a room, now or as soon as there is a connection.
  join(room) {
    if (this.#rooms.has(room)) return;
    this.#rooms.set(room, { position: null, joined: false });
    if (this.state === "online" && !this.#greeting) this.#rejoin([room]);
  }

  leave(room) {
    if (this.#rooms.delete(room) && this.state === "online") this.#command({ type: "leave", room });
  }

  // send posts a message and returns it as an object that changes:
  // {room, text, nonce, state, error, outcome, reasons, seq, review}, where state
  // is "pending", "posted", "held" (for a moderator) or "failed". It throws when too many wait already.
  send(room, text) {
    if (this.#outgoing.size >= MAX_OUTGOING) throw new Error("too many messages wait for an answer");
    const m = { room, text, nonce: nonce(), ts: Date.now(), since: Date.now(), state: "pending", tries: 0 };
    this.#outgoing.set(m.nonce, m);
    if (this.state === "online") this.#post(m);
    return m;
  }

  // typing says that we write in a room, as often as it is of use. Only a
  // refusal is ever answered.
  typing(room) {
    const r = this.#rooms.get(room);
    if (!r?.joined || this.state !== "online" || Date.now() < (r.quietUntil ?? 0)) return;
    r.quietUntil = Date.now() + TYPING_EVERY;
    this.#requests.delete(r.typingID);
    r.typingID = this.#command({ type: "typing", room });
    this.#requests.set(r.typingID, { resolve() {}, reject: (e) => e.code !== "offline" && (r.quietUntil = Date.now() + TYPING_REFUSED) });
  }

  // resend tries a failed message again, with the same nonce: if it was posted
  // after all, the server answers as the first time and posts nothing.
  resend(m) {
    Object.assign(m, { state: "pending", error: null, why: null, since: Date.now(), tries: 0 });
    this.#outgoing.set(m.nonce, m);
    this.#emit("outgoing", m);
    if (this.state === "online") this.#post(m);
  }

  // history answers with the history event; range is {before} or {after} or
  // empty, and may carry a limit.
  history(room, range = {}) {
    return this.#request({ type: "history", room, ...range });
  }

  members(room) {
    return this.#request({ type: "members", room });
  }

  // direct answers with the room of us and another person, which is then joined
  // as any other.
  direct(user) {
    return this.#request({ type: "direct", user });
  }

  // reviews answers with the reviews event: the queue for a moderator (all), and
  // our own held messages otherwise. review approves or rejects one.
  reviews(room) {
    return this.#request({ type: "reviews", room });
  }

  review(room, id, action, reason) {
    return this.#request({ type: "review", room, review_id: id, action, ...(reason ? { reason } : {}) });
  }

  // why answers with the why event: what keeps us from posting the text in the
  // room, or with a user, as a moderator, what keeps that person.
  why(room, text, user) {
    return this.#request({ type: "why", room, ...(text ? { text } : {}), ...(user ? { user } : {}) });
  }

  // manage does something to a person: kick, mute or ban, for seconds or for
  // good. The nonce makes it once, whatever is sent again.
  manage(room, type, user, seconds) {
    return this.#request({ type, room, user, nonce: nonce(), ...(seconds ? { seconds } : {}) });
  }

  // configure changes what it names of a room's settings, in the protocol's words.
  configure(room, changes) {
    return this.#request({ type: "configure", room, nonce: nonce(), ...changes });
  }

  // refresh puts a new token in the place of ours, also for reconnecting, and
  // answers with the refreshed event. One that is refused changes nothing.
  async refresh(token) {
    const e = await this.#request({ type: "refresh", token });
    this.#identity = { token };
    this.#foresee(e.expires_ts);
    return e;
  }

  // erase takes what was written in an entry out of the room's log, for good.
  erase(room, seq) {
    return this.#request({ type: "erase", room, seq, nonce: nonce() });
  }

  // appeal asks that a moderator looks at a message that was denied, once.
  appeal(m) {
    const error = m.error;
    Object.assign(m, { state: "pending", error: null });
    this.#emit("outgoing", m);
    this.#request({ type: "appeal", room: m.room, appeal: error.appeal }).then(
      (ack) => this.#acked(m, ack),
      (e) => this.#fail(m, e.code === "offline" || e.code === "timeout" ? error : e),
    );
  }

  // --- the connection ---

  #dial() {
    this.#drop();
    this.#set("connecting");
    let socket;
    try {
      socket = new WebSocket(this.#url, "parley.v1.json");
    } catch {
      return this.#lost(1006, "");
    }
    this.#socket = socket;
    const mine = (f) => (e) => this.#socket === socket && f(e);
    socket.onopen = mine(() => this.#hello());
    socket.onmessage = mine((e) => this.#receive(e.data));
    socket.onclose = mine((e) => this.#lost(e.code, e.reason));
    this.#after("hello", HELLO_TIMEOUT, () => this.#lost(1006, "the server did not answer"));
  }

  // drop lets go of the socket without waiting for its close handshake, which
  // on a dead network may take minutes.
  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    for (const t of this.#timers.values()) clearTimeout(t);
    this.#timers.clear();
    for (const r of this.#rooms.values()) r.joined = false;
    for (const q of this.#requests.values()) q.reject({ code: "offline", text: "the connection was lost" });
    this.#requests.clear();
    this.#joins.clear();
    if (socket && socket.readyState <= WebSocket.OPEN) socket.close(1000);
  }

  #lost(code, reason, wait = 0) {
    this.#drop();
    if (!reconnects(code)) return this.#set("stopped", { code, reason });
    if (code === 1012) wait = Math.random() * (this.jitter ?? 0);
    const delay = wait + backoff(this.#attempts++);
    this.#set("waiting", { code, reason, retryAt: Date.now() + delay });
    this.#after("retry", delay, () => this.#dial());
    this.#expire();
  }

  async #hello() {
    const { token, guest = "", secret } = this.#identity;
    const who = token ? { token } : secret ? { guest, secret } : { guest };
    try {
      this.#welcome(await this.#request({ type: "hello", ...who, device: "web" }));
    } catch (e) {
      if (e.code === "offline") return;
      if (e.retryable) return this.#lost(1006, e.text, e.retry_after_ms);
      this.#drop();
      this.#set("stopped", { reason: e.text });
      this.#emit("refused", e);
    }
  }

  #welcome(w) {
    if (this.user !== w.user) this.#outgoing.clear(); // nobody speaks for another
    this.user = w.user;
    this.limits = w.limits ?? {};
    this.jitter = w.reconnect_jitter_ms;
    this.heartbeat = w.heartbeat_ms || 15_000;
    if (w.secret) this.#identity = { guest: w.user, secret: w.secret };
    clearTimeout(this.#timers.get("hello"));
    this.#after("stable", STABLE_AFTER, () => (this.#attempts = 0));
    this.#watch();
    this.#set("online");
    this.#greeting = true; // what is joined now is joined below, with all others
    this.#emit("welcome", w);
    this.#greeting = false;
    this.#foresee(w.expires_ts);
    this.#rejoin([...this.#rooms.keys()]);
    this.#expire();
    for (const m of this.#outgoing.values()) this.#post(m);
  }

  // foresee says in time that the token ends.
  #foresee(ends) {
    clearTimeout(this.#timers.get("renew"));
    if (!ends) return;
    const wait = Math.max(0, ends - RENEW_BEFORE - Date.now());
    if (wait < 2 ** 31) this.#after("renew", wait, () => this.#emit("expiring", { ends })); // a timer lasts 24 days at most
  }

  // rejoin is one command for all rooms, each with the position we have.
  #rejoin(names) {
    names = names.filter((room) => this.#rooms.has(room));
    if (names.length === 0) return;
    const rooms = names.map((room) => {
      const since = this.#rooms.get(room).position;
      return since ? { room, since } : { room };
    });
    this.#joins.set(this.#command({ type: "join", rooms }), new Set(names));
  }

  // watch probes a connection that has been silent for one heartbeat. Pings of
  // the server are answered by the browser and cannot be seen from here.
  #watch() {
    this.#after("watch", this.heartbeat / 2, () => {
      if (Date.now() - this.#lastHeard >= this.heartbeat) this.#probe();
      this.#watch();
    });
  }

  #probe() {
    if (this.state !== "online" || this.#timers.has("probe")) return;
    const asked = Date.now();
    this.#command({ type: "ping", ts: asked });
    this.#after("probe", PROBE_TIMEOUT, () => {
      this.#timers.delete("probe");
      if (this.#lastHeard < asked) this.#lost(1006, "the server went silent");
    });
  }

  #command(c) {
    const id = String(this.#nextID++);
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify({ ...c, id }));
    return id;
  }

  #request(c) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return Promise.reject({ code: "offline", text: "there is no connection" });
    return new Promise((resolve, reject) => {
      const id = this.#command(c);
      const timer = setTimeout(() => {
        this.#requests.delete(id);
        reject({ code: "timeout", text: "the server did not answer in time" });
      }, REPLY_TIMEOUT);
      const end = (f) => (v) => (clearTimeout(timer), f(v));
      this.#requests.set(id, { resolve: end(resolve), reject: end(reject) });
    });
  }

  #post(m) {
    const id = this.#command({ type: "send", room: m.room, nonce: m.nonce, text: m.text });
    this.#requests.set(id, { resolve: (ack) => this.#acked(m, ack), reject: (e) => this.#unsent(m, e) });
  }

  // --- what the server says ---

  #receive(data) {
    this.#lastHeard = Date.now();
    let e;
    try {
      e = JSON.parse(data);
    } catch {
      return console.warn("parley: a frame that is not JSON was ignored");
    }
    if (Object.hasOwn(this.#handlers, e.type)) this.#handlers[e.type](e); // others are events of a newer server
  }

  #handlers = {
    welcome: (e) => this.#reply(e),
    ack: (e) => this.#reply(e),
    history: (e) => this.#reply(e),
    members: (e) => this.#reply(e),
    reviews: (e) => this.#reply(e),
    review: (e) => (this.#reply(e), this.#emit("review", e)),
    why: (e) => this.#reply(e),
    refreshed: (e) => this.#reply(e),
    direct: (e) => (e.id ? this.#reply(e) : this.#emit("direct", e)),
    error: (e) => this.#error(e),
    joined: (e) => this.#joined(e),
    left: (e) => this.#left(e),
    reset: (e) => this.#reset(e),
    message: (e) => this.#entry(e),
    settings: (e) => this.#entry(e),
    role: (e) => this.#entry(e),
    ban: (e) => this.#entry(e),
    kick: (e) => this.#entry(e),
    erase: (e) => this.#entry(e),
    presence: (e) => this.#rooms.get(e.room)?.joined && this.#emit("presence", e),
    typing: (e) => this.#rooms.get(e.room)?.joined && this.#emit("typing", e),
    ping: (e) => this.#command({ type: "pong", ts: e.ts }),
  };

  #reply(e) {
    const q = this.#requests.get(e.id);
    this.#requests.delete(e.id);
    q?.resolve(e);
  }

  #error(e) {
    const q = this.#requests.get(e.id);
    if (q) {
      this.#requests.delete(e.id);
      return q.reject(e);
    }
    for (const name of e.room ? [e.room] : [...(this.#joins.get(e.id) ?? [])]) {
      if (this.#answered(e.id, name) && this.#rooms.get(name)?.joined === false) this.#notJoined(name, e);
    }
  }

  // answered ticks a room off its join command.
  #answered(id, room) {
    const asked = this.#joins.get(id);
    const was = asked?.delete(room) ?? false;
    if (asked?.size === 0) this.#joins.delete(id);
    return was;
  }

  #notJoined(room, e) {
    if (e.retryable) return this.#after("join " + room, Math.max(e.retry_after_ms ?? 0, backoff(3)), () => this.#rejoin([room]));
    this.#rooms.delete(room);
    this.#emit("denied", { ...e, room });
  }

  #joined(e) {
    this.#answered(e.id, e.room);
    const r = this.#rooms.get(e.room);
    if (!r) return; // left meanwhile
    r.joined = true;
    const fresh = !(e.recovered && r.position);
    if (fresh) r.position = { epoch: e.epoch, seq: e.seq, id: e.last_id };
    this.#emit("joined", { ...e, fresh });
  }

  #left(e) {
    if (this.#rooms.delete(e.room)) this.#emit("left", e); // not asked for: we were removed
  }

  #reset(e) {
    const r = this.#rooms.get(e.room);
    if (!r) return;
    r.position = { epoch: e.epoch, seq: e.seq, id: e.last_id };
    this.#emit("reset", e);
  }

  // entry moves the room's position. A hole would break the contract; should
  // one come, the room is joined anew rather than shown with something missing.
  #entry(e) {
    const r = this.#rooms.get(e.room);
    if (!r?.position || e.seq <= r.position.seq) return;
    if (e.seq !== r.position.seq + 1) {
      console.warn(`parley: ${e.room} jumped from ${r.position.seq} to ${e.seq}; joining again`);
      Object.assign(r, { position: null, joined: false });
      return this.#rejoin([e.room]);
    }
    r.position = { epoch: r.position.epoch, seq: e.seq, id: e.id };
    this.#emit("entry", e);
  }

  // --- messages on their way ---

  #acked(m, ack) {
    this.#outgoing.delete(m.nonce);
    if (refused(ack.outcome)) return this.#fail(m, rejection(ack));
    const state = ack.outcome === "held" ? "held" : "posted";
    Object.assign(m, { state, review: ack.review_id, outcome: ack.outcome, reasons: ack.reasons ?? [], seq: ack.seq, epoch: ack.epoch });
    this.#emit("outgoing", m);
  }

  #unsent(m, e) {
    if (e.code === "offline") return; // sent again after the next welcome
    if (e.retryable && TRANSIENT.has(e.code) && m.tries < MAX_RETRIES) {
      const wait = Math.max(e.retry_after_ms ?? 0, backoff(m.tries++));
      return this.#after("send " + m.nonce, wait, () => this.#post(m));
    }
    this.#fail(m, e);
  }

  // expire gives up messages that have waited too long to be resent unasked:
  // past the idempotency window a resend could be a second message.
  #expire() {
    for (const m of this.#outgoing.values()) {
      if (Date.now() - m.since >= RESEND_FOR) {
        this.#fail(m, UNCONFIRMED);
      }
    }
  }

  #fail(m, error) {
    this.#outgoing.delete(m.nonce);
    Object.assign(m, { state: "failed", error, why: null, reasons: error.reasons ?? [] });
    this.#emit("outgoing", m);
  }

  // --- small things ---

  #after(name, ms, f) {
    clearTimeout(this.#timers.get(name));
    this.#timers.set(name, setTimeout(f, ms));
  }

  #set(state, more = {}) {
    this.state = state;
    this.#emit("state", { state, ...more });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
