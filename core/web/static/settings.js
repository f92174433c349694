// The settings of a room, for those who may run it: a form beside the people. The
// server decides; only what was changed is sent, so that two who change different
// things do not undo each other.

import { byID, say, show } from "./dom.js";
import { explain } from "./words.js";

const FIELDS = { title: "set-title", mode: "set-mode", visibility: "set-visibility", slow_mode_s: "set-slow" };

// settingsOf is what the room is now, in the words of the protocol.
const settingsOf = (room) => ({ title: room.title, mode: room.mode, visibility: room.visibility, slow_mode_s: room.slow });

export class SettingsView {
  #box = byID("settings");
  #form = byID("settings-form");
  #room = null;
  #shown = null; // the settings that the form began with
  #configure;

  // configure(room, changes) returns a promise.
  constructor(configure) {
    this.#configure = configure;
    this.#form.addEventListener("submit", (e) => (e.preventDefault(), this.#save()));
    this.#form.addEventListener("reset", (e) => (e.preventDefault(), this.#fill()));
  }

  // draw shows the form for a room that we run. What somebody else has changed
  // is taken over where we have not begun to change it ourselves.
  draw(room) {
    if (room !== this.#room) {
      this.#room = room;
      this.#box.open = false;
      this.#fill();
    }
    if (!show(this.#box, room.runs && room.joined)) return;
    const now = settingsOf(room);
    for (const [key, id] of Object.entries(FIELDS)) {
      if (now[key] === this.#shown[key]) continue;
      if (this.#value(key) === this.#shown[key]) byID(id).value = String(now[key]);
      this.#shown[key] = now[key];
    }
  }

  #fill() {
    this.#shown = settingsOf(this.#room);
    for (const [key, id] of Object.entries(FIELDS)) byID(id).value = String(this.#shown[key]);
    say(byID("settings-problem"), "");
    say(byID("settings-done"), "");
  }

  #value(key) {
    const value = byID(FIELDS[key]).value.trim();
    return key === "slow_mode_s" ? Number(value) : value;
  }

  #save() {
    const room = this.#room;
    const keys = Object.keys(FIELDS).filter((key) => this.#value(key) !== this.#shown[key]);
    const here = (f) => (e) => room === this.#room && f(e);
    say(byID("settings-problem"), "");
    say(byID("settings-done"), "");
    if (keys.length === 0) return;
    this.#configure(room.name, Object.fromEntries(keys.map((key) => [key, this.#value(key)]))).then(
      here(() => say(byID("settings-done"), "Saved.")),
      here((e) => say(byID("settings-problem"), explain(e).text)),
    );
  }
}
