// The queue of held messages, for those who decide about them. It lies above the
// input, closed; an element is kept for as long as its message waits, so that
// what a moderator has typed and where the focus is survive a change.

import { avatar, byID, el, say, show, timeOf } from "./dom.js";
import { explain, sources, why } from "./words.js";

export class QueueView {
  #queue = byID("queue");
  #list = byID("queue-list");
  #shown = new Map(); // review id -> element
  #room = null;
  #decide;

  // decide(room, id, action, reason) returns a promise.
  constructor(decide) {
    this.#decide = decide;
  }

  draw(room) {
    if (room !== this.#room) {
      this.#room = room;
      this.#queue.open = false;
      this.#shown.clear();
      this.#list.replaceChildren();
    }
    const items = room.queue ?? [];
    if (!show(this.#queue, room.queue !== null && (items.length > 0 || this.#queue.open))) return;
    say(byID("queue-count"), `${items.length} ${items.length === 1 ? "message waits" : "messages wait"} for review`);
    const waiting = new Set(items.map((i) => i.review_id));
    for (const [id, node] of this.#shown) waiting.has(id) || this.#drop(id, node);
    for (const i of items) {
      if (this.#shown.has(i.review_id)) continue;
      const node = this.#make(i);
      this.#shown.set(i.review_id, node);
      this.#list.append(node);
    }
  }

  // drop takes an element away; the focus in it goes to the next one.
  #drop(id, node) {
    const had = node.contains(document.activeElement);
    const next = node.nextElementSibling ?? node.previousElementSibling;
    node.remove();
    this.#shown.delete(id);
    if (had) (next?.querySelector("button") ?? this.#queue.querySelector("summary")).focus();
  }

  #make(item) {
    const room = this.#room.name;
    const reason = el("input", { maxLength: 200, autocomplete: "off", placeholder: "reason, for a rejection", ariaLabel: `Reason for rejecting the message of ${item.from}` });
    const problem = el("p", { className: "problem", role: "alert" });
    const buttons = ["Approve", "Reject"].map((label) => {
      const b = el("button", { type: "button", ariaLabel: `${label} the message of ${item.from}` }, label);
      b.addEventListener("click", () => {
        if (b.ariaDisabled === "true") return;
        busy(true); // a disabled button would lose the focus
        say(problem, "");
        this.#decide(room, item.review_id, label.toLowerCase(), reason.value.trim()).catch((e) => {
          busy(false);
          say(problem, explain(e).text);
        });
      });
      return b;
    });
    const busy = (on) => buttons.forEach((x) => (x.ariaDisabled = String(on)));
    reason.addEventListener("keydown", (e) => e.key === "Enter" && !e.isComposing && (e.preventDefault(), buttons[1].click()));
    const head = el("p", { className: "head" }, el("b", {}, item.from), timeOf(item.ts), item.appeal ? el("span", { className: "tag" }, "Appeal") : "");
    const said = el("p", { className: "foot" }, el("span", {}, why(item.reasons)), el("span", { className: "rule" }, sources(item.reasons ?? [])));
    return el("li", {}, avatar(el("span", { ariaHidden: "true" }), item.from),
      el("div", { className: "body" }, head, el("p", { className: "text", dir: "auto" }, item.text ?? ""), said, el("div", { className: "row" }, ...buttons, reason), problem));
  }
}
