// What this browser remembers. Of the tab: who we are (a guest's resume secret or
// a token) and which rooms are open; both outlive a reload and nothing else. Of
// the person: how far each room was read, and who the other is in a room of two.
// For somebody with an account that outlives the tab; a guest's name is anybody's
// tomorrow, so a guest's ends with it. A browser may forbid storage; then the tab
// remembers until it is reloaded.

const KEPT = 150; // rooms remembered of one person, those read last; a connection may join 200
const WRITE_AFTER = 300; // ms that marks wait, so that a busy room is not one write a message

export class Memory {
  #tab = { identity: null, rooms: [] };
  #user = ""; // whose book it is
  #store = "sessionStorage"; // where the book lies
  #book = {}; // room -> {epoch, seq, with}, the last read last
  #dirty = new Map(); // rooms whose mark is not written yet -> the mark, null to forget it
  #timer = 0;

  // changed() is called when another tab of the same person has read something.
  constructor(changed) {
    Object.assign(this.#tab, parse("sessionStorage", "parley"));
    addEventListener("pagehide", () => this.#write());
    addEventListener("storage", (e) => {
      if (e.key !== this.#key || this.#store !== "localStorage") return;
      this.#book = parse(this.#store, this.#key);
      changed();
    });
  }

  get #key() {
    return "parley of " + this.#user;
  }

  get identity() {
    return this.#tab.identity;
  }
  set identity(v) {
    this.#keep({ identity: v });
  }

  get rooms() {
    return this.#tab.rooms;
  }
  set rooms(v) {
    this.#keep({ rooms: v });
  }

  #keep(change) {
    Object.assign(this.#tab, change);
    save("sessionStorage", "parley", this.#tab);
  }

  // is opens the book of a person.
  is(user, cls) {
    this.#write();
    this.#user = user;
    this.#store = cls === "guest" ? "sessionStorage" : "localStorage";
    this.#book = parse(this.#store, this.#key);
  }

  // known are the rooms in the book.
  get known() {
    return Object.keys(this.#book);
  }

  // mark is how far a room was read, {epoch, seq}, or null.
  mark(room) {
    const m = Object.hasOwn(this.#book, room) ? this.#book[room] : null;
    return m && m.seq >= 0 ? m : null;
  }

  // partner is the other person of a room of two, as far as we know.
  partner(room) {
    return (Object.hasOwn(this.#book, room) && this.#book[room].with) || "";
  }

  // read says how far a room was read.
  read(room, epoch, seq) {
    const m = this.mark(room);
    if (m?.epoch === epoch && m.seq >= seq) return;
    this.#note(room, { epoch, seq });
  }

  // meet says who the other person of a room is.
  meet(room, user) {
    if (this.partner(room) !== user) this.#note(room, { with: user });
  }

  forget(room) {
    delete this.#book[room];
    this.#dirty.set(room, null);
    this.#write();
  }

  // clear forgets everything of the tab and the person.
  clear() {
    this.#dirty.clear();
    this.#keep({ identity: null, rooms: [] });
    this.#book = {};
    if (this.#user) save(this.#store, this.#key, {});
  }

  #note(room, change) {
    const m = { ...this.#book[room], ...change };
    delete this.#book[room]; // to the end
    this.#book[room] = m;
    this.#dirty.set(room, m);
    this.#timer ||= setTimeout(() => this.#write(), WRITE_AFTER);
  }

  // write puts our changes into what is stored by now, which another tab may
  // have changed as well.
  #write() {
    clearTimeout(this.#timer);
    this.#timer = 0;
    if (this.#dirty.size === 0) return;
    const book = parse(this.#store, this.#key);
    for (const [room, m] of this.#dirty) {
      const was = book[room];
      delete book[room];
      if (m) book[room] = was && was.epoch === m.epoch && was.seq > m.seq ? { ...m, seq: was.seq } : m;
    }
    this.#dirty.clear();
    for (const room of Object.keys(book).slice(0, -KEPT)) delete book[room];
    this.#book = book;
    save(this.#store, this.#key, book);
  }
}

function parse(store, key) {
  try {
    return JSON.parse(globalThis[store].getItem(key)) ?? {};
  } catch {
    return {}; // nothing usable is stored
  }
}

function save(store, key, value) {
  try {
    globalThis[store].setItem(key, JSON.stringify(value));
  } catch {
    // private mode, or full: the tab still remembers
  }
}
