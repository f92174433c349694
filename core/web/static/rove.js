// One stop of Tab for a list of many: the arrows go through it, Home and End to
// its ends, and Tab goes on to what the element at hand has to offer.

const STEPS = { ArrowUp: (at) => at - 1, ArrowDown: (at) => at + 1, Home: () => 0, End: (_, n) => n - 1 };

export class Rove {
  #box;
  #selector;
  #current = null;

  constructor(box, selector) {
    this.#box = box;
    this.#selector = selector;
    box.addEventListener("focusin", (e) => e.target.closest(selector) && this.#make(e.target.closest(selector)));
    box.addEventListener("keydown", (e) => {
      if (!Object.hasOwn(STEPS, e.key) || !e.target.matches(selector) || e.altKey || e.ctrlKey || e.metaKey) return;
      const all = [...box.querySelectorAll(selector)];
      const next = all[STEPS[e.key](all.indexOf(e.target), all.length)];
      e.preventDefault();
      next?.focus();
    });
  }

  // settle gives the stop to the last element, unless one has it; call it when
  // the list has changed.
  settle() {
    if (this.#current?.isConnected && this.#box.contains(document.activeElement)) return;
    this.#make([...this.#box.querySelectorAll(this.#selector)].at(-1) ?? null);
  }

  #make(node) {
    if (node === this.#current) return;
    if (this.#current) this.#current.tabIndex = -1;
    this.#current = node;
    if (node) node.tabIndex = 0;
  }
}
