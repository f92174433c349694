// Where the page begins: what the server says about itself, what this tab
// remembers, one client and one UI.

import { Client } from "./client.js";
import { UI } from "./ui.js";

const meta = (name) => document.querySelector(`meta[name="parley-${name}"]`).content;

const config = { name: meta("name"), room: meta("room"), rooms: meta("rooms").split(" ").filter(Boolean) };

// Tab is what survives a reload of this tab and nothing else: who we are (a
// guest's resume secret or a token) and which rooms were joined. A browser may
// forbid storage; then the tab remembers until it is reloaded.
class Tab {
  #data = { identity: null, rooms: [], directs: {} };

  constructor() {
    try {
      Object.assign(this.#data, JSON.parse(sessionStorage.getItem("parley") ?? "{}"));
    } catch {
      // nothing usable is stored
    }
  }

  get identity() {
    return this.#data.identity;
  }
  set identity(v) {
    this.#keep({ identity: v });
  }

  get rooms() {
    return this.#data.rooms;
  }
  set rooms(v) {
    this.#keep({ rooms: v });
  }

  // directs is who the other person of a direct room is.
  get directs() {
    return this.#data.directs;
  }
  set directs(v) {
    this.#keep({ directs: v });
  }

  clear() {
    this.#keep({ identity: null, rooms: [], directs: {} });
  }

  #keep(change) {
    Object.assign(this.#data, change);
    try {
      sessionStorage.setItem("parley", JSON.stringify(this.#data));
    } catch {
      // private mode, or full: the tab still remembers
    }
  }
}

const socket = new URL(meta("socket"), location.href);
socket.protocol = socket.protocol === "https:" ? "wss:" : "ws:";
socket.hash = "";

new UI(new Client(socket.href), config, new Tab()).start();
