// Where the page begins: what the server says about itself, one client and
// one UI.

import { Client } from "./client.js";
import { UI } from "./ui.js";

const meta = (name) => document.querySelector(`meta[name="parley-${name}"]`).content;

const config = { name: meta("name"), room: meta("room"), rooms: meta("rooms").split(" ").filter(Boolean) };

const socket = new URL(meta("socket"), location.href);
socket.protocol = socket.protocol === "https:" ? "wss:" : "ws:";
socket.hash = "";

new UI(new Client(socket.href), config).start();
