// What the page says in words: reasons, errors, closed connections, changes of
// a room. Codes are stable and may be shown in a sentence of ours; a sentence
// of the server is shown where it has one.

const ERRORS = {
  bad_request: "the server did not understand it",
  unauthorized: "the sign-in was refused or has expired",
  token_expired: "your sign-in has expired",
  name_taken: "this name is taken",
  denied: "the rules here do not allow it",
  policy_error: "the rules could not be read, so the answer is no; please tell an operator",
  plugin_error: "a moderation plugin failed; try again in a moment",
  no_room: "this room does not exist, and may not be created",
  not_member: "you are not in this room",
  text_too_long: "it is too long",
  frame_too_big: "it is too long",
  rate_limited: "that was too fast",
  slow_mode: "this room asks for more time between messages",
  too_many_rooms: "you are in as many rooms as are allowed; leave one first",
  too_many_conns: "there are too many connections from your address; close one first",
  queue_full: "too many messages wait for a moderator already",
  no_review: "somebody else has decided about this message",
  no_appeal: "this cannot be appealed any more",
  rejected: "a moderator has looked at it and decided against it",
  expired: "no moderator has looked at it in time",
  unavailable: "the server cannot reach its store right now",
  overloaded: "the server has too much to do right now",
  unknown: "the connection was lost before the server answered, so it may or may not have been posted",
  internal: "something went wrong on the server",
};

const CLOSED = {
  1009: "What you sent is larger than the server takes.",
  4001: "Your sign-in was refused. Sign in again.",
  4002: "Your sign-in has expired. Sign in again.",
  4003: "The rules of this server do not allow you to connect.",
  4008: "The server closed the connection because of malformed commands. Reload the page.",
  4009: "The connection took too long to sign in.",
};

const LOST = {
  1012: "the server is restarting",
  4501: "this device read too slowly",
  4502: "the connection went silent",
  4503: "too many connections",
};

const MODES = {
  announce: "an announcement room: only moderators write here",
  "read-only": "read-only: nobody writes here at present",
  archived: "archived: it stays readable and takes no more messages",
  open: "open: everybody may write",
};

export function sentence(text) {
  text = String(text).trim();
  if (!text) return "";
  text = text[0].toUpperCase() + text.slice(1);
  return /[.!?…]$/.test(text) ? text : text + ".";
}

// explain answers why something was refused: {text, source}, where source
// names the rule for those who want to look it up.
export function explain(error) {
  const reasons = error.reasons ?? [];
  const said = reasons.map((r) => r.text || plain(r.code)).filter(Boolean);
  const text = said.length ? said.map(sentence).join(" ") : sentence(error.text || ERRORS[error.code] || plain(error.code));
  const wait = error.retry_after_ms ? ` You can try again ${soon(error.retry_after_ms)}.` : "";
  return { text: text + wait, source: sources(reasons) };
}

// sources is "policy · announce_only".
export function sources(reasons) {
  return [...new Set(reasons.map((r) => [r.source?.replace(/^plugin:/, "plugin "), r.code].filter(Boolean).join(" · ")))].join(", ");
}

// behind is what an operator finds a refusal by: the rule, and the decision's name.
export function behind(e) {
  return [sources(e.reasons ?? []), e.decision ? "decision " + e.decision : ""].filter(Boolean).join(", ");
}

// why is the reasons for a redaction in one sentence each.
export function why(reasons) {
  const said = (reasons ?? []).map((r) => sentence(r.text || plain(r.code))).filter(Boolean);
  return [...new Set(said)].join(" ");
}

function plain(code) {
  return String(code ?? "").replaceAll("_", " ");
}

export function soon(ms) {
  const s = Math.max(1, Math.ceil(ms / 1000));
  if (s < 90) return s === 1 ? "in a second" : `in ${s} seconds`;
  return `in ${Math.ceil(s / 60)} minutes`;
}

export function closed(detail) {
  return CLOSED[detail.code] ?? sentence(detail.reason || "the server closed the connection");
}

export function lost(detail) {
  return LOST[detail.code] ?? (detail.reason || "the connection was lost");
}

// putOut says why we are not in a room any more.
export function putOut(e) {
  const until = e.until_ts ? ` You can come back ${soon(e.until_ts - Date.now())}.` : "";
  if (e.code === "kicked") return `${e.by ?? "A moderator"} put you out of this room: ${sentence(e.text)}`;
  if (e.code === "banned") return `${e.by ?? "A moderator"} banned you from this room: ${sentence(e.text)}${until}`;
  return explain(e).text;
}

// typists says who writes.
export function typists(names) {
  if (names.length > 2) return "Several people are typing";
  return names.length ? `${names.join(" and ")} ${names.length === 1 ? "is" : "are"} typing` : "";
}

export function modeNote(room) {
  const notes = [];
  if (room.mode !== "open" && MODES[room.mode]) notes.push(`This room is ${MODES[room.mode]}.`);
  if (room.slow > 0) notes.push(`Slow mode: one message every ${room.slow} seconds.`);
  return notes.join(" ");
}

// erasure says what became of a message whose text is gone, and by whom, where
// the entry that tells of it has come; text is the reason that they gave.
export function erasure({ by, text }, from) {
  if (!by) return "This message was erased.";
  const why = text ? `: ${sentence(text)}` : ".";
  return by === from ? `Erased by its author${why}` : `Erased by ${by}${why}`;
}

// change says what an entry that is no message did to the room.
export function change(e) {
  const by = e.from || "The server";
  return (e.changes ?? []).map((c) => describe(by, e, c)).filter(Boolean).join(" ");
}

function describe(by, e, c) {
  const [kind, user] = [c.key.split("/")[0], c.key.slice(c.key.indexOf("/") + 1)];
  switch (kind) {
    case "settings":
      return e.seq === 1 ? `${by} created this room.` : `${by} changed this room; it is now ${MODES[c.value?.mode] ?? "changed"}.`;
    case "role":
      if (e.type === "kick") return `${by} put ${user} out of this room` + (e.text ? `: ${sentence(e.text)}` : ".");
      return c.value ? `${by} made ${user} ${c.value}.` : `${by} took ${user}'s role.`;
    case "ban":
    case "mute": {
      const [on, off] = kind === "ban" ? ["banned", "lifted the ban of"] : ["muted", "let speak again:"];
      if (c.value === undefined) return `${by} ${off} ${user}.`;
      return `${by} ${on} ${user}` + (c.value?.reason ? `: ${sentence(c.value.reason)}` : ".");
    }
  }
  return "";
}

const BY = { room: "room", text: "text", policy: "rule", slow_mode: "slow mode", rate_limit: "rate", plugin: "plugin" };

// obstacles are what a why event says, one {text, change, source} for each thing
// in the way; for a moderator the source names the rule or the plugin's version.
export function obstacles(e) {
  const now = Date.now();
  return (e.blocks ?? []).map((b) => {
    const wait = b.until_ts > now ? ` It ends ${soon(b.until_ts - now)}.` : "";
    const named = [(b.source ?? "").replace(/^plugin:/, "plugin ") || (BY[b.by] ?? BY.policy), b.code];
    if (b.rule) named.push(`${b.rule.name} at ${b.rule.file}:${b.rule.line}`);
    if (b.plugin) named.push(`version ${b.plugin.version || "unknown"}`);
    return { text: sentence(b.text) + wait, change: sentence(b.change ?? ""), source: named.join(" · ") };
  });
}

const OUTCOMES = { held: "It would be taken, and wait for a moderator.", redacted: "It would be posted with parts hidden." };

// verdict sums a why event up; who is the person, "" for ourselves.
export function verdict(e, who = "") {
  if (!e.may) return who ? `${who} cannot post here just now.` : "You cannot post this here just now.";
  return OUTCOMES[e.outcome] ?? (who ? `Nothing keeps ${who} from posting here.` : "Nothing stands in the way any more: send it again.");
}

export function byteLength(text) {
  return new TextEncoder().encode(text).length;
}
