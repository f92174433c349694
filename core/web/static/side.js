// The panels beside the conversation: rooms and people. On a narrow screen
// each is a drawer that opens over it.

import { avatar, byID, el, say, show } from "./dom.js";

export const NAMED = 200; // people listed; above, the server gives a count anyway

export class SideView {
  #app = byID("app");
  #opener = null;
  #marks = new Map(); // list id -> what it shows
  #people = new Map(); // name -> their element in the list
  #drawnFor = ""; // for whom those were made
  #manage;

  // manage(type, name, seconds) does something to a person.
  constructor(manage) {
    this.#manage = manage;
    byID("show-rooms").addEventListener("click", (e) => this.#toggle("rooms", e.currentTarget));
    byID("show-people").addEventListener("click", (e) => this.#toggle("people", e.currentTarget));
    byID("veil").addEventListener("click", () => this.close());
    document.addEventListener("keydown", (e) => e.key === "Escape" && this.close());
    matchMedia("(min-width: 64rem)").addEventListener("change", () => this.close());
  }

  #toggle(panel, opener) {
    if (this.#app.dataset.panel === panel) return this.close();
    this.close();
    this.#app.dataset.panel = panel;
    this.#opener = opener;
    opener.ariaExpanded = "true";
    byID("talk").inert = true;
    show(byID("veil"), true);
    byID(panel).focus();
  }

  // close returns the focus to the button that opened the drawer.
  close() {
    if (!this.#opener) return;
    delete this.#app.dataset.panel;
    this.#opener.ariaExpanded = "false";
    byID("talk").inert = false;
    show(byID("veil"), false);
    this.#opener.focus();
    this.#opener = null;
  }

  rooms(rooms, active, offered) {
    const all = [...rooms.values()];
    const draw = (id, list) =>
      this.#replace(id, list.map((r) => [r.name, r.label, r.name === active, Boolean(r.denied), r.unread, r.calls, r.uncounted]), () => list.map((r) => item(r, r.name === active)));
    draw("room-list", all.filter((r) => !r.forTwo));
    const directs = all.filter((r) => r.forTwo);
    draw("direct-list", directs);
    show(byID("directs"), directs.length > 0);
    this.#replace("offered-list", offered, () => offered.map((name) => el("li", {}, link(name, name))));
    show(byID("offered"), offered.length > 0);
    show(byID("elsewhere"), all.some((r) => r.name !== active && r.unread > 0));
  }

  // replace rebuilds a list where what it shows has changed, and leaves the
  // focus on the entry that had it.
  #replace(id, what, make) {
    const mark = JSON.stringify(what);
    if (this.#marks.get(id) === mark) return;
    this.#marks.set(id, mark);
    const list = byID(id);
    const focused = list.contains(document.activeElement) && document.activeElement.getAttribute("href");
    list.replaceChildren(...make());
    if (focused) [...list.querySelectorAll("a")].find((a) => a.getAttribute("href") === focused)?.focus();
  }

  // people lists who is here; runs says whether we may act on them. An element is
  // kept for as long as its person is here, so that who comes and goes takes
  // nobody's focus and closes nobody's menu.
  people(room, me, runs) {
    say(byID("people-count"), String(room.count));
    const names = [...(room.members ?? [])].sort((a, b) => (b === me) - (a === me) || a.localeCompare(b));
    const shown = names.slice(0, NAMED);
    if (this.#drawnFor !== `${me} ${runs}`) {
      this.#drawnFor = `${me} ${runs}`;
      this.#people.clear();
      byID("people-list").replaceChildren();
    }
    this.#drop(new Set(shown));
    let at = byID("people-list").firstChild;
    for (const name of shown) {
      if (!this.#people.has(name)) this.#people.set(name, person(name, name === me, runs && name !== me, this.#manage));
      const node = this.#people.get(name);
      if (node === at) at = at.nextSibling;
      else byID("people-list").insertBefore(node, at);
    }
    const more = room.members ? Math.max(0, names.length - NAMED) : room.count;
    const note = room.members ? `and ${more} more` : `${room.count} ${room.count === 1 ? "person" : "people"}`;
    if (show(byID("people-more"), more > 0)) say(byID("people-more"), note);
  }

  // drop takes away who is not here any more; the focus goes to a neighbour.
  #drop(here) {
    for (const [name, node] of this.#people) {
      if (here.has(name)) continue;
      const had = node.contains(document.activeElement);
      const next = [node.nextElementSibling, node.previousElementSibling].find((n) => n?.querySelector("button"));
      node.remove();
      this.#people.delete(name);
      if (had) (next?.querySelector("button") ?? byID("people")).focus();
    }
  }

  me(user, cls) {
    avatar(byID("my-avatar"), user);
    say(byID("my-name"), user);
    say(byID("my-class"), cls === "guest" ? "Guest" : "Signed in");
  }
}

function item(room, active) {
  const a = link(room.name, room.label, room.forTwo ? "@" : "#");
  if (active) a.ariaCurrent = "page";
  if (room.denied) a.classList.add("denied");
  if (room.unread > 0 && !active) {
    a.classList.add("unread");
    const badges = el("span", { className: "badges" });
    if (room.calls > 0) badges.append(badge("@" + some(room.calls), room.calls === 1 ? " mentions you," : " mention you,", "calls"));
    badges.append(badge(some(room.unread, room.uncounted), " unread"));
    a.append(badges);
  }
  return el("li", {}, a);
}

const some = (n, more) => (n > 99 ? "99+" : n + (more ? "+" : ""));
const badge = (text, words, kind = "") => el("span", { className: ("badge " + kind).trim() }, text, el("span", { className: "sr" }, words));

function link(name, title, sign = "#") {
  return el("a", { href: "#" + name }, el("span", { className: "hash", ariaHidden: "true" }, sign), el("span", { className: "label" }, title));
}

function person(name, me, runs, manage) {
  const talk = me ? el("span", { className: "label" }, name) : el("button", { type: "button", className: "label talk", title: `Write to ${name} alone` }, name);
  if (!me) talk.addEventListener("click", () => manage("direct", name));
  return el("li", {}, avatar(el("span", { ariaHidden: "true" }), name), talk, me ? el("span", { className: "you" }, "you") : "", runs ? menu(name, manage) : "");
}

const ACTS = [["kick", "Put out"], ["mute", "Mute for 10 minutes", 600], ["ban", "Ban for an hour", 3600], ["ban", "Ban for good"], ["unmute", "Unmute"], ["why", "What keeps them from posting"]];

// menu is what one who runs the room may do to a person.
function menu(name, manage) {
  const node = el("details", { className: "acts" }, el("summary", { ariaLabel: `What to do about ${name}` }, "⋯"));
  const buttons = ACTS.map(([type, label, seconds]) => {
    const b = el("button", { type: "button", className: "link", ariaLabel: `${label}: ${name}` }, label);
    b.addEventListener("click", () => ((node.open = false), manage(type, name, seconds)));
    return b;
  });
  node.append(el("div", {}, ...buttons));
  node.addEventListener("keydown", (e) => {
    if (e.key !== "Escape" || !node.open) return;
    e.stopPropagation();
    node.open = false;
    node.firstChild.focus();
  });
  return node;
}
