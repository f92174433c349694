// Names that are offered while one is typed after an "@": the combobox pattern of
// the ARIA Authoring Practices. The focus stays in the box; arrows choose, Enter
// or Tab takes the name, Escape leaves the text as it is.

import { avatar, byID, el, say, show } from "./dom.js";
import { candidates, typedName } from "./mentions.js";

const OFFERED = 8;
const KEYS = { ArrowDown: (c) => c.choose(1), ArrowUp: (c) => c.choose(-1), Enter: (c) => c.take(), Tab: (c) => c.take(), Escape: (c) => c.dismiss() };

export class Completion {
  #box;
  #names; // returns who may be meant
  #list = byID("names");
  #offered = [];
  #chosen = 0;
  #typed = null; // the name being typed, see typedName
  #dismissed = -1; // where the "@" stands at which nothing more is offered

  constructor(box, names) {
    this.#box = box;
    this.#names = names;
    box.addEventListener("input", () => this.#look());
    box.addEventListener("click", () => this.#look());
    box.addEventListener("keyup", (e) => /^(Arrow(Left|Right)|Home|End)$/.test(e.key) && this.#look());
    box.addEventListener("blur", () => this.close());
    box.addEventListener("keydown", (e) => {
      if (this.#list.hidden || e.isComposing || e.shiftKey || !Object.hasOwn(KEYS, e.key)) return;
      e.preventDefault();
      e.stopImmediatePropagation(); // Enter would send, Escape close a drawer
      KEYS[e.key](this);
    });
    this.#list.addEventListener("pointerdown", (e) => e.preventDefault()); // the box keeps the focus
  }

  #look() {
    const { value, selectionStart: at, selectionEnd: end } = this.#box;
    this.#typed = at === end ? typedName(value, at) : null;
    if (!this.#typed) this.#dismissed = -1;
    if (!this.#typed || this.#typed.from === this.#dismissed) return this.close();
    const names = candidates(this.#typed.start, this.#names(), OFFERED);
    if (names.length === 0 || (names.length === 1 && names[0] === this.#typed.start)) return this.close();
    if (JSON.stringify(names) !== JSON.stringify(this.#offered)) this.#open(names);
  }

  #open(names) {
    this.#offered = names;
    this.#list.replaceChildren(...names.map((name, i) => {
      const option = el("li", { id: "name-" + i, role: "option" }, avatar(el("span", { ariaHidden: "true" }), name), el("span", { className: "label" }, name));
      option.addEventListener("click", () => ((this.#chosen = i), this.take()));
      return option;
    }));
    show(this.#list, true);
    this.#box.role = "combobox";
    this.#box.ariaExpanded = "true";
    say(byID("names-said"), `${names.length} ${names.length === 1 ? "name" : "names"} to choose from with the arrow keys.`);
    this.#chosen = 0;
    this.choose(0);
  }

  choose(step) {
    this.#chosen = (this.#chosen + step + this.#offered.length) % this.#offered.length;
    for (const [i, option] of [...this.#list.children].entries()) option.ariaSelected = String(i === this.#chosen);
    this.#list.children[this.#chosen].scrollIntoView({ block: "nearest" });
    this.#box.setAttribute("aria-activedescendant", "name-" + this.#chosen);
  }

  take() {
    const { value, selectionStart: at } = this.#box;
    const space = value[at] === " " ? "" : " ";
    this.#box.setRangeText("@" + this.#offered[this.#chosen] + space, this.#typed.from, at, "end");
    this.close();
    this.#box.dispatchEvent(new Event("input", { bubbles: true }));
  }

  dismiss() {
    this.#dismissed = this.#typed.from;
    this.close();
  }

  close() {
    if (this.#list.hidden) return;
    show(this.#list, false);
    this.#offered = [];
    this.#list.replaceChildren();
    this.#box.role = this.#box.ariaExpanded = null;
    this.#box.removeAttribute("aria-activedescendant");
    say(byID("names-said"), "");
  }
}
