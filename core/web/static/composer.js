// The box at the foot of the page: what is being written, in each room, and what
// there is to say about it.

import { Completion } from "./complete.js";
import { byID, el, say } from "./dom.js";
import { byteLength } from "./words.js";

const TALLEST = 200; // px

export class Composer {
  #box = byID("text");
  #drafts = new Map(); // room -> what was being written there
  #room = "";
  #completion;
  #actions;

  // actions: {send(text), typing(), names(), limit()}; send returns whether the
  // text is on its way, limit the bytes that a text may have, 0 for any.
  constructor(actions) {
    this.#actions = actions;
    this.#completion = new Completion(this.#box, () => actions.names()); // first: its keys are not ours
    byID("send-form").addEventListener("submit", (e) => (e.preventDefault(), this.#send()));
    this.#box.addEventListener("keydown", (e) => {
      if (e.key === "Enter" && !e.shiftKey && !e.isComposing) e.preventDefault(), this.#send();
    });
    this.#box.addEventListener("input", () => {
      this.fit();
      if (this.#box.value.trim()) actions.typing();
    });
  }

  // open goes on with what was being written in a room.
  open(room) {
    if (this.#room) this.#drafts.set(this.#room, this.#box.value);
    this.#room = room;
    this.#box.value = this.#drafts.get(room) ?? "";
    this.#completion.close();
    this.say("");
    this.fit();
    if (matchMedia("(pointer: fine)").matches) this.focus({ preventScroll: true });
  }

  forget(room) {
    this.#drafts.delete(room);
    if (room === this.#room) this.#room = "";
  }

  clear() {
    this.#drafts.clear();
    this.#room = this.#box.value = "";
  }

  // draw says to whom one writes, or that nobody may.
  draw(label, denied) {
    this.#box.placeholder = `Write to ${label}`;
    this.#box.disabled = byID("send").disabled = denied;
  }

  focus(how) {
    this.#box.focus(how);
  }

  // edit puts a text before what is being written.
  edit(text) {
    this.#box.value = [text, this.#box.value.trim()].filter(Boolean).join("\n");
    this.say("");
    this.fit();
    this.focus();
  }

  #send() {
    const text = this.#box.value.trimEnd();
    const limit = this.#actions.limit();
    if (!text || this.#box.disabled) return;
    if (limit && byteLength(text) > limit) return this.say(`This message is too long: ${byteLength(text)} bytes, ${limit} are allowed. Shorten it.`);
    if (!this.#actions.send(text)) return;
    this.#box.value = "";
    this.#completion.close();
    this.say("");
    this.fit();
  }

  // fit gives the box the height of its text and warns as the limit comes near.
  fit() {
    this.#box.style.setProperty("height", "auto");
    this.#box.style.setProperty("height", Math.min(this.#box.scrollHeight + 2, TALLEST) + "px");
    const limit = this.#actions.limit();
    const left = limit ? limit - byteLength(this.#box.value) : Infinity;
    say(byID("room-left"), left > limit / 5 || !limit ? "" : left < 0 ? `${-left} bytes too long` : `${left} bytes left`);
  }

  // say puts an explanation beside the box, and reads it out at once; a remark
  // waits its turn.
  say(text, source = "") {
    this.remark("");
    byID("notice").replaceChildren(...(text ? note(text, source) : []));
  }

  remark(text, source = "") {
    byID("remark").replaceChildren(...(text ? note(text, source) : []));
  }
}

function note(text, source) {
  return [el("span", {}, text), source ? el("span", { className: "rule" }, source) : ""];
}
