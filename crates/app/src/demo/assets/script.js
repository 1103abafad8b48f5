// The live parts of the demo pages. Each part starts only where its elements are.
"use strict";

const byId = (id) => document.getElementById(id);

/** Makes an element with text in it; text from elsewhere never becomes markup. */
function make(tag, text = "") {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

/** Writes name and value pairs into a <dl class="facts">. */
function showFacts(list, facts) {
  list.replaceChildren(
    ...facts.map(([name, value]) => {
      const pair = make("div");
      pair.append(make("dt", name), make("dd", String(value)));
      return pair;
    }),
  );
}

/** `/.rempart/trace`: lines of name=value, answered by Rempart itself. */
async function trace() {
  const state = byId("trace-state");
  try {
    const answer = await fetch("/.rempart/trace", { cache: "no-store" });
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const lines = (await answer.text()).split("\n").filter((line) => line.includes("="));
    const facts = lines.map((line) => [line.slice(0, line.indexOf("=")), line.slice(line.indexOf("=") + 1)]);
    showFacts(byId("trace"), facts);
    state.textContent = "";
  } catch {
    state.textContent = "Nothing answered there. Is Rempart in front of this page?";
  }
  const entry = performance.getEntriesByType("navigation")[0];
  if (entry?.nextHopProtocol) {
    byId("visitor-protocol").textContent = `asked for this page over ${protocolName(entry.nextHopProtocol)}`;
  }
}

function protocolName(alpn) {
  return { h2: "HTTP/2", h3: "HTTP/3", "http/1.1": "HTTP/1.1" }[alpn] ?? alpn;
}

/** One event per second; the browser connects again by itself and says which number it saw last. */
function events() {
  const state = byId("tick-state");
  const source = new EventSource("/events");
  state.textContent = "Connecting…";
  source.addEventListener("tick", (event) => {
    const { number, at } = JSON.parse(event.data);
    byId("tick").textContent = number;
    state.textContent = `Last event at ${new Date(at).toLocaleTimeString()}.`;
  });
  source.addEventListener("error", () => {
    state.textContent = "The connection was lost; the browser connects again.";
  });
  addEventListener("pagehide", () => source.close());
}

/** Sends a message and shows what comes back, with the time it took. */
function echo() {
  const state = byId("echo-state");
  const log = byId("echo-log");
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/ws`);
  let sentAt = 0;
  state.textContent = "Connecting…";
  const send = () => {
    if (socket.readyState !== WebSocket.OPEN) return;
    sentAt = performance.now();
    socket.send(byId("echo-text").value);
  };
  socket.addEventListener("open", () => {
    state.textContent = "Connected.";
    send();
  });
  socket.addEventListener("message", (event) => {
    const line = make("li");
    line.append(make("span", event.data), make("small", `${(performance.now() - sentAt).toFixed(1)} ms`));
    log.prepend(line);
    while (log.children.length > 4) log.lastChild.remove();
  });
  socket.addEventListener("close", () => {
    state.textContent = "The connection is closed. Load the page again to open it.";
  });
  byId("echo").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
}

/** The notes page: every change goes to the API, then the list is read again. */
function notes() {
  const state = byId("notes-state");
  const call = async (method, path, text) => {
    const init = { method };
    if (text !== undefined) {
      init.headers = { "Content-Type": "application/json" };
      init.body = JSON.stringify({ text });
    }
    const answer = await fetch(path, init);
    if (!answer.ok) throw new Error((await answer.json()).detail ?? `status ${answer.status}`);
    return answer.status === 204 ? null : answer.json();
  };
  const show = async () => {
    const { notes: all } = await call("GET", "/api/notes");
    state.textContent = all.length === 0 ? "There are no notes yet." : `Notes: ${all.length}`;
    byId("notes").replaceChildren(
      ...all.map((note) => {
        const line = make("li");
        const remove = make("button", "Delete");
        remove.className = "quiet";
        remove.setAttribute("aria-label", `Delete note ${note.number}`);
        remove.addEventListener("click", () => attempt(() => call("DELETE", note.href)));
        line.append(make("span", note.text), remove);
        return line;
      }),
    );
  };
  const attempt = async (change) => {
    try {
      await change?.();
      await show();
    } catch (error) {
      state.textContent = error.message;
    }
  };
  byId("note-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const field = byId("note-text");
    attempt(() => call("POST", "/api/notes", field.value)).then(() => (field.value = ""));
  });
  attempt();
}

/** Sends a file as it is and shows what the website counted. */
function upload() {
  const state = byId("upload-state");
  state.textContent = "";
  byId("upload").addEventListener("submit", async (event) => {
    event.preventDefault();
    const file = byId("upload-file").files[0];
    const began = performance.now();
    state.textContent = "Sending…";
    try {
      const answer = await fetch("/upload", { method: "PUT", body: file });
      if (!answer.ok) throw new Error(`The answer was ${answer.status}.`);
      showFacts(byId("upload-result"), Object.entries(await answer.json()));
      state.textContent = `Sent in ${((performance.now() - began) / 1000).toFixed(1)} s.`;
    } catch (error) {
      state.textContent = error.message;
    }
  });
}

if (byId("trace")) trace();
if (byId("tick")) events();
if (byId("echo")) echo();
if (byId("notes")) notes();
if (byId("upload")) upload();
