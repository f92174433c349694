// A sign-in by token ends with the token. Before that the page asks for a new one,
// which takes the place of the old while everything else stays.

import { byID, say, show } from "./dom.js";
import { explain, soon } from "./words.js";

const TICK = 15_000; // ms between two looks at the time that is left

export class RenewView {
  #form = byID("renew");
  #timer = 0;
  #ends = 0;

  // refresh(token) returns a promise.
  constructor(refresh) {
    this.#form.addEventListener("submit", (e) => {
      e.preventDefault();
      const token = byID("renew-token").value.trim();
      if (!token) return;
      say(byID("renew-problem"), "");
      refresh(token).then(() => this.hide(), (e) => say(byID("renew-problem"), explain(e).text));
    });
  }

  // ask shows the form until the token, which ends at a time in Unix ms, is
  // replaced, or hide is called.
  ask(ends) {
    this.#ends = ends;
    show(this.#form, true);
    this.#tell();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#tell(), TICK);
  }

  #tell() {
    const left = this.#ends - Date.now();
    say(byID("renew-text"), left > 0 ? `Your sign-in ends ${soon(left)}. Paste a new token to stay:` : "Your sign-in has ended. Paste a new token to stay:");
  }

  hide() {
    clearInterval(this.#timer);
    show(this.#form, false);
    byID("renew-token").value = "";
    say(byID("renew-problem"), "");
  }
}
