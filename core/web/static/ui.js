// The page: it turns what the client says into what is shown, and what a
// person does into commands. Rooms are models (rooms.js); the list of messages
// and the panels draw themselves (log.js, side.js).

import { Composer } from "./composer.js";
import { byID, coalesce, say, show } from "./dom.js";
import { LogView } from "./log.js";
import { Memory } from "./memory.js";
import { QueueView } from "./queue.js";
import { RenewView } from "./renew.js";
import { Room } from "./rooms.js";
import { SettingsView } from "./settings.js";
import { NAMED, SideView } from "./side.js";
import { behind, closed, explain, lost, modeNote, obstacles, putOut, sentence, soon, sources, typists, verdict, why } from "./words.js";

const COUNT_TRIES = 5; // to count what is unread in a room, where the server asks to wait
const later = (ms) => new Promise((done) => setTimeout(done, ms));
const ROOM_NAME = /^[a-z0-9][a-z0-9_.:-]{0,63}$/;

export class UI {
  #client;
  #config; // {name, room, rooms}
  #memory = new Memory(() => this.#readElsewhere());
  #rooms = new Map(); // name -> Room, in the order they were joined
  #active = null;
  #user = "";
  #countdown = 0;
  #watching = 0; // the timer that looks who still writes
  #log;
  #composer;
  #side = new SideView((type, name, seconds) => this.#manage(type, name, seconds));
  #roles = []; // our global roles
  #reckoning = Promise.resolve(); // ends when what is unread in the rooms entered is counted
  #queue;
  #settings;
  #renew;

  constructor(client, config) {
    this.#client = client;
    this.#config = config;
    this.#log = new LogView({
      resend: (m) => client.resend(m),
      appeal: (m) => client.appeal(m),
      why: (m) => this.#why(m),
      edit: (m) => this.#edit(m),
      discard: (m) => (this.#room(m.room)?.dismiss(m), this.#say(""), this.#log.draw()),
      erase: (seq) => this.#erase(seq),
      manage: (type, name) => this.#manage(type, name),
      older: () => this.#load((room) => room.earlier()),
      latest: () => this.#load((room) => room.latest()),
      read: () => this.#read(),
    });
    this.#composer = new Composer({
      send: (text) => this.#send(text),
      typing: () => this.#active && client.typing(this.#active.name),
      names: () => this.#active?.names ?? [],
      limit: () => client.limits.text_bytes,
    });
    this.#queue = new QueueView((room, id, action, reason) => client.review(room, id, action, reason));
    this.#settings = new SettingsView((room, changes) => client.configure(room, changes));
    this.#renew = new RenewView((token) => this.#refreshed(token));
    for (const type of ["state", "welcome", "refused", "joined", "left", "denied", "reset", "entry", "presence", "typing", "direct", "outgoing", "expiring", "review"]) {
      client.addEventListener(type, (e) => this["on" + type](e.detail));
    }
    this.#listen();
  }

  // start signs in with what the tab remembers, or asks.
  start() {
    const identity = this.#memory.identity;
    if (identity) this.#signIn(identity);
    else this.#ask("");
  }

  #listen() {
    byID("signin-form").addEventListener("submit", (e) => (e.preventDefault(), this.#submit()));
    byID("join-form").addEventListener("submit", (e) => (e.preventDefault(), this.#joinTyped()));
    byID("retry").addEventListener("click", () => this.#client.retryNow());
    byID("leave").addEventListener("click", () => this.#leave(this.#active.name));
    byID("signout").addEventListener("click", () => this.#signOut());
    document.querySelector(".skip").addEventListener("click", (e) => (e.preventDefault(), byID(this.#active ? "text" : "guest").focus()));
    addEventListener("hashchange", () => this.#visit());
    document.addEventListener("visibilitychange", () => document.hidden || this.#log.draw());
  }

  // --- signing in and out ---

  #ask(problem) {
    this.#renew.hide();
    show(byID("app"), false);
    show(byID("signin"), true);
    this.#problem("signin-problem", problem);
    byID("guest").value ||= this.#memory.identity?.guest ?? "";
    byID("signin-go").disabled = false;
    byID("guest").focus();
  }

  #submit() {
    const token = byID("token").value.trim();
    this.#problem("signin-problem", "");
    byID("signin-go").disabled = true;
    this.#signIn(token ? { token } : { guest: byID("guest").value.trim() });
  }

  #signIn(identity) {
    this.#memory.identity = identity;
    this.#client.start(identity);
  }

  #signOut() {
    this.#client.stop();
    for (const name of this.#rooms.keys()) this.#client.leave(name);
    this.#rooms.clear();
    this.#composer.clear();
    this.#active = null;
    this.#user = byID("guest").value = byID("token").value = "";
    this.#memory.clear();
    this.#ask("");
    document.title = this.#config.name;
  }

  onwelcome(w) {
    if (this.#user && this.#user !== w.user) for (const r of this.#rooms.values()) r.mine.clear();
    this.#user = w.user;
    this.#roles = w.roles ?? [];
    if (w.secret) this.#memory.identity = { guest: w.user, secret: w.secret };
    byID("token").value = "";
    this.#renew.hide();
    this.#memory.is(w.user, w.class);
    this.#side.me(w.user, w.class);
    show(byID("app"), true);
    show(byID("signin"), false);
    if (!this.#active) {
      for (const name of new Set([...this.#memory.rooms, ...this.#memory.known])) this.#enter(name);
      this.#visit();
    }
    this.#composer.fit();
  }

  onexpiring(e) {
    this.#renew.ask(e.ends);
  }

  async #refreshed(token) {
    this.#roles = (await this.#client.refresh(token)).roles ?? [];
    this.#memory.identity = { token };
    this.#refresh();
  }

  onrefused(e) {
    if (e.code === "name_taken") this.#memory.identity = null;
    this.#ask(explain(e).text);
  }

  onstate(s) {
    const words = { online: "Connected", connecting: "Connecting…", waiting: "Reconnecting", stopped: "Disconnected" };
    byID("connection").dataset.state = s.state;
    say(byID("connection-text"), words[s.state] + (s.state === "waiting" ? ": " + lost(s) : ""));
    show(byID("retry"), s.state === "waiting");
    clearInterval(this.#countdown);
    const tick = () => say(byID("countdown"), s.state === "waiting" ? soon(s.retryAt - Date.now()) : "");
    tick();
    if (s.state === "waiting") this.#countdown = setInterval(tick, 1000);
    if (s.state === "waiting" && !byID("signin").hidden) this.#problem("signin-problem", `No connection to the server: ${lost(s)}. Trying again.`);
    if (s.state === "stopped" && s.code) {
      this.#client.stop();
      this.#ask(closed(s));
    }
  }

  // --- rooms ---

  // visit opens the room that the address names.
  #visit() {
    let name = this.#config.room;
    try {
      name = decodeURIComponent(location.hash.slice(1)).toLowerCase() || name;
    } catch {
      // an address somebody mistyped
    }
    this.#open(ROOM_NAME.test(name) ? name : this.#config.room);
  }

  #enter(name) {
    let room = this.#rooms.get(name);
    if (!room) this.#rooms.set(name, (room = new Room(name, this.#client)));
    room.partner ||= this.#memory.partner(name);
    this.#client.join(name);
    this.#memory.rooms = [...this.#rooms.keys()];
    return room;
  }

  #open(name) {
    if (!this.#user) return;
    if (this.#active && this.#active.name !== name) this.#active.unreadFrom = 0;
    const room = this.#enter(name);
    this.#active = room;
    if (location.hash !== "#" + name) history.replaceState(null, "", "#" + name);
    this.#composer.open(name);
    this.#log.open(room);
    this.#side.close();
    this.#refresh();
    if (room.joined && room.entries.length === 0) this.#fill(room);
    else if (room.joined) this.#recount(room);
  }

  #leave(name) {
    this.#client.leave(name);
    this.#rooms.delete(name);
    this.#composer.forget(name);
    this.#memory.forget(name);
    this.#memory.rooms = [...this.#rooms.keys()];
    this.#active = null;
    this.#open(this.#rooms.keys().next().value ?? this.#config.room);
  }

  #joinTyped() {
    const name = byID("join-room").value.trim().replace(/^#/, "").toLowerCase();
    if (!ROOM_NAME.test(name)) {
      return this.#problem("join-problem", "A room name is 1 to 64 of a-z, 0-9 and - _ . : and begins with a letter or digit.");
    }
    this.#problem("join-problem", "");
    byID("join-room").value = "";
    location.hash = name;
  }

  #room(name) {
    return this.#rooms.get(name);
  }

  // fill reads what a room shows when it is opened. Rooms in the background
  // wait, so that coming back to many rooms does not ask for all at once.
  #fill(room) {
    this.#load((r) => r.latest(), room);
    this.#people(room);
    this.#look(room);
  }

  // people asks who is here, once at a time; above so many nobody is named.
  #people(room) {
    if (room.asking) return;
    room.asking = true;
    room.stale = false;
    this.#client.members(room.name).then((e) => (room.here(e), this.#refresh()), () => {}).finally(() => {
      room.asking = false;
      if (room.stale && room === this.#active) this.#recount(room);
    });
  }

  // recount asks again where somebody came or went unnamed.
  #recount(room) {
    if (room.count > NAMED) room.members = null;
    else if (room.stale || !room.members) this.#people(room);
  }

  // look asks what waits for review. A server that is older does without.
  #look(room) {
    this.#client.reviews(room.name).then((e) => (room.reviewed(e), this.#refresh()), () => {});
  }

  // onreview takes a decision about a message of ours; for whoever decides it
  // is word that the queue has changed.
  onreview(e) {
    const room = this.#room(e.room);
    if (!room) return;
    const m = room.decided(e);
    if (m && room === this.#active) this.#say((m.error.code === "expired" ? "Not posted. " : "Rejected. ") + explain(m.error).text);
    if (room.queue) this.#look(room);
    this.#refresh();
  }

  #load(ask, room = this.#active) {
    room.problem = null;
    const asked = ask(room);
    this.#log.draw();
    asked.catch((e) => e.code !== "offline" && (room.problem = e)).finally(() => this.#log.draw());
  }

  onjoined(e) {
    const room = this.#room(e.room);
    if (!room) return;
    room.entered(e);
    if (e.fresh) this.#reckon(room);
    if (room === this.#active) this.#fill(room);
    else room.members = null;
    this.#refresh();
  }

  onreset(e) {
    const room = this.#room(e.room);
    if (!room) return;
    room.head = { epoch: e.epoch, seq: e.seq };
    room.forget();
    this.#reckon(room);
    if (room === this.#active) this.#fill(room);
    this.#refresh();
  }

  ondenied(e) {
    const room = this.#room(e.room);
    if (!room) return;
    Object.assign(room, { joined: false, denied: e });
    room.forget();
    const full = (r) => r.denied?.code === "too_many_rooms"; // it was read, and is tried again another time
    if (!full(room)) this.#memory.forget(room.name);
    if (room === this.#active) this.#say(`You cannot enter ${room.name}: ${explain(e).text}`, behind(e));
    this.#memory.rooms = [...this.#rooms.values()].filter((r) => !r.denied || full(r)).map((r) => r.name);
    this.#refresh();
  }

  onleft(e) {
    const room = this.#room(e.room);
    this.ondenied({ ...e, code: "denied", text: putOut(e) });
    if (room && room === this.#active) this.#say(putOut(e), behind(e));
  }

  // runs says whether we may act on people here. The policy decides; this is
  // for what to offer.
  #runs(room) {
    return ["owner", "moderator"].includes(room.role) || this.#roles.includes("moderator") || this.#roles.includes("admin");
  }

  #manage(type, name, seconds) {
    if (type === "why") return this.#whyOf(name);
    if (type === "direct") return this.#talkTo(name);
    const room = this.#active.name;
    this.#say("");
    this.#client.manage(room, type, name, seconds).catch((e) => room === this.#active?.name && this.#say(explain(e).text, explain(e).source));
  }

  #erase(seq) {
    const room = this.#active.name;
    this.#say("");
    this.#client.erase(room, seq).catch((e) => room === this.#active?.name && this.#say("Not erased. " + explain(e).text, explain(e).source));
  }

  // talkTo opens the room of us and another person.
  #talkTo(name) {
    this.#say("");
    this.#client.direct(name).then(
      (e) => {
        this.#memory.meet(e.room, e.user);
        location.hash = e.room;
      },
      (e) => this.#say(explain(e).text, explain(e).source),
    );
  }

  // ondirect enters the room in which somebody has written to us. What they wrote
  // is unread: all of it in a new room, else the last message, or as much as has
  // come since the room was last read.
  ondirect(e) {
    this.#memory.meet(e.room, e.user);
    const room = this.#enter(e.room);
    room.unseen = e.new ? Infinity : 1;
    this.#refresh();
  }

  // reckon finds out what was written since the room was last read, one room
  // after the other.
  #reckon(room) {
    room.read();
    const { epoch, seq } = room.head;
    if (!this.#memory.mark(room.name)) this.#memory.read(room.name, epoch, Math.max(0, seq - room.unseen));
    room.unseen = 0;
    const mark = this.#memory.mark(room.name);
    const ask = (n) => room.reckon(mark).catch((e) => e.retry_after_ms && n > 1 && later(e.retry_after_ms).then(() => ask(n - 1)));
    this.#reckoning = this.#reckoning.then(() => ask(COUNT_TRIES)).then(() => this.#refresh());
  }

  // readElsewhere takes what another tab of ours has read.
  #readElsewhere() {
    for (const room of this.#rooms.values()) {
      const mark = this.#memory.mark(room.name);
      if (mark && room.head && mark.epoch === room.head.epoch && mark.seq >= room.head.seq) room.read();
    }
    this.#refresh();
  }

  // why asks what stood in a message's way; what it is told is shown with it.
  #why(m) {
    const told = (e) => ((m.why = e), this.#log.draw());
    this.#client.why(m.room, m.text).then(told, told);
  }

  // whyOf asks the same about a person, as their moderator.
  #whyOf(name) {
    const room = this.#active.name;
    const here = (f) => (e) => room === this.#active?.name && f(e);
    this.#say("");
    this.#client.why(room, "", name).then(
      here((e) => {
        const all = obstacles(e);
        const said = [verdict(e, name), ...all.map((o) => `${o.text} ${o.change}`), sentence(e.note ?? "")];
        this.#remark(said.filter(Boolean).join(" "), all.map((o) => o.source).join(", "));
      }),
      here((e) => this.#say(explain(e).text, explain(e).source)),
    );
  }

  onpresence(e) {
    const room = this.#room(e.room);
    room?.presence(e);
    if (!room || room !== this.#active) return;
    this.#recount(room);
    this.#refresh();
  }

  ontyping(e) {
    const room = this.#room(e.room);
    room?.typing(e);
    if (room && room === this.#active) this.#drawTypists();
  }

  // drawTypists says who writes, and looks again for as long as somebody does.
  #drawTypists() {
    clearTimeout(this.#watching);
    const names = this.#active?.writing() ?? [];
    say(byID("typing"), typists(names));
    if (names.length) this.#watching = setTimeout(() => this.#drawTypists(), 500);
  }

  onentry(e) {
    const room = this.#room(e.room);
    if (!room) return;
    room.take(e);
    const seen = room === this.#active && this.#log.atEnd && document.hasFocus();
    if (!seen) room.missed(e);
    this.#refresh();
  }

  #read() {
    const room = this.#active;
    if (!room?.joined || room.loading || !document.hasFocus()) return;
    this.#memory.read(room.name, room.head.epoch, room.head.seq);
    if (!room.unread) return;
    room.read();
    this.#refresh();
  }

  // --- writing ---

  #send(text) {
    try {
      this.#active.write(this.#client.send(this.#active.name, text));
    } catch (e) {
      this.#say(sentence(e.message));
      return false;
    }
    this.#active.unreadFrom = 0;
    this.#log.follow();
    this.#log.draw();
    return true;
  }

  onoutgoing(m) {
    const room = this.#room(m.room);
    room?.answered(m);
    if (room && room === this.#active) {
      if (m.state === "failed") this.#say("Not posted. " + explain(m.error).text, explain(m.error).source);
      if (m.state === "held") this.#remark("Waiting for review. " + why(m.reasons), sources(m.reasons));
      if (m.outcome === "redacted") this.#remark("Posted with parts hidden. " + why(m.reasons), sources(m.reasons));
    }
    this.#log.draw();
  }

  #edit(m) {
    this.#room(m.room)?.dismiss(m);
    this.#composer.edit(m.text);
    this.#log.draw();
  }

  #say(text, source) {
    this.#composer.say(text, source);
  }

  #remark(text, source) {
    this.#composer.remark(text, source);
  }

  #problem(id, text) {
    say(byID(id), text);
  }

  // refresh draws everything around the conversation.
  #refresh = coalesce(() => {
    const room = this.#active;
    if (!room) return;
    if (room.partner && room.joined) this.#memory.meet(room.name, room.partner);
    say(byID("room-title"), room.label);
    say(byID("room-note"), modeNote(room) || (room.partner ? "Only you and " + room.partner : "#" + room.name));
    show(byID("leave"), this.#rooms.size > 1 || room.name !== this.#config.room);
    this.#composer.draw(room.label, Boolean(room.denied));
    this.#side.rooms(this.#rooms, room.name, this.#config.rooms.filter((name) => !this.#rooms.has(name)));
    room.runs = this.#runs(room);
    this.#side.people(room, this.#user, room.runs);
    this.#queue.draw(room);
    this.#settings.draw(room);
    this.#drawTypists();
    const unread = [...this.#rooms.values()].reduce((n, r) => n + r.unread, 0);
    document.title = `${unread ? `(${unread}) ` : ""}${room.label} · ${this.#config.name}`;
    this.#log.draw();
  });
}
