// The page of a conversation: sends messages, and shows replies while they arrive.

import { ask, notice, root } from "./app.js";

const composer = document.getElementById("composer");
const box = document.getElementById("message");
const said = JSON.parse(composer.dataset.words);
const [longest, mediaBytes] = [composer.dataset.longest, composer.dataset.mediaBytes].map(Number);
const address = `${root}/api/v1/chats/${composer.dataset.id}`;
const kept = `tunewright-message-${composer.dataset.id}`; // a message that is not sent yet
const by = (id) => document.getElementById(id);
let edited = null; // number of the message that is replaced
let attached = []; // files of the next message
let busy = false;

const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

function problem(text) {
  by("problem").textContent = text;
  by("problem").hidden = !text;
}

function setBusy(now) {
  busy = now;
  by("send").hidden = now;
  by("stop").hidden = !now;
  by("stop").disabled = false;
}

// ---- the conversation

async function renewThread() {
  const response = await ask(`${root}/chat/${composer.dataset.id}/thread`, { headers: { "HX-Request": "true" } });
  if (!response.ok) return;
  const made = document.createElement("template");
  made.innerHTML = await response.text();
  by("thread").replaceWith(made.content.querySelector("#thread"));
  toEnd(true);
}

// On a wide screen the conversation scrolls in itself, on a phone with the page.
function toEnd(always) {
  const thread = by("thread");
  if (thread.scrollHeight > thread.clientHeight + 1) {
    const isNear = thread.scrollHeight - thread.scrollTop - thread.clientHeight < 120;
    if (always || isNear) thread.scrollTop = thread.scrollHeight;
    return;
  }
  const below = thread.getBoundingClientRect().bottom + composer.offsetHeight + 16 - innerHeight;
  if (below > 0 && (always || below < 240)) scrollBy(0, below);
}

/** Send what a user asks for, and follow the replies. */
async function send(wish) {
  problem("");
  setBusy(true);
  try {
    const response = await ask(`${address}/messages`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
      body: JSON.stringify(wish),
    });
    if (!response.ok) {
      const error = await response.json();
      problem(error.hint ? `${error.error} (${error.hint})` : error.error);
      return false;
    }
    await renewThread();
    await follow(response);
    return true;
  } catch (error) {
    if (error.name !== "TypeError") throw error; // of the network: said by ask()
    return false;
  } finally {
    setBusy(false);
    composer.dataset.turns = String(Number(composer.dataset.turns) + 1); // for tests
  }
}

/** Follow the events of replies to their end. */
async function follow(response) {
  const decoder = new TextDecoder();
  let rest = "";
  if (response.status === 200) {
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = parts.pop();
      for (const part of parts) heard(part);
    }
  }
  await renewThread();
}

function heard(text) {
  const [, name] = text.match(/^event: (\w+)$/m);
  const data = JSON.parse(text.slice(text.indexOf("\ndata: ") + 7));
  const live = document.querySelector(`[data-live="${data.side}"]`);
  if (!live) return;
  const waiting = live.querySelector(".waiting");
  if (name === "loading") {
    waiting.textContent = fill(said.loading, { n: data.seconds }) + (data.line ? `: ${data.line}` : "");
  } else if (name === "html") {
    live.querySelector(".markdown").innerHTML = data.html; // made by the server, which escapes it
    const thinking = live.querySelector(".thinking");
    thinking.hidden = !data.reasoning;
    thinking.querySelector(".plain").textContent = data.reasoning;
    waiting.hidden = Boolean(data.html || data.reasoning);
  } else if (name === "error") {
    waiting.textContent = data.error;
    waiting.hidden = false;
  }
  toEnd(false);
}

// ---- the message

async function submit() {
  const content = box.value;
  if (busy || (!content.trim() && !attached.length)) return;
  if (content.length > longest) {
    problem(fill(said.long, { n: content.length.toLocaleString(), most: longest.toLocaleString() }));
    return;
  }
  const wish = { content, media: attached.map(({ kind, name }) => ({ kind, name })) };
  if (edited !== null) wish.edit = edited;
  box.value = "";
  if (await send(wish)) {
    sessionStorage.removeItem(kept);
    attached = [];
    showAttached();
    stopEditing();
  } else if (!box.value) {
    box.value = content;
  }
  box.focus();
}

function stopEditing() {
  edited = null;
  by("editing").hidden = true;
}

composer.addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
box.addEventListener("keydown", (event) => {
  // Enter chooses a word while Chinese, Japanese or Korean is composed; 229: Safari says it so
  if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  submit();
});
box.addEventListener("input", () => {
  if (box.value.length <= longest) {
    sessionStorage.setItem(kept, box.value);
    problem("");
  }
});
by("cancel").addEventListener("click", () => {
  stopEditing();
  box.value = "";
  box.focus();
});
by("stop").addEventListener("click", async () => {
  by("stop").disabled = true;
  await ask(`${address}/stop`, { method: "POST" });
  box.focus();
});

// ---- buttons of messages

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-edit], [data-again], [data-raw]");
  if (!button || busy) return;
  if ("edit" in button.dataset) {
    edited = Number(button.dataset.edit);
    by("editing").hidden = false;
    box.value = button.dataset.text;
    box.focus();
  } else if ("again" in button.dataset) {
    send({ regenerate: true }).then(() => box.focus());
  } else {
    showRaw(button.dataset.raw);
  }
});

document.addEventListener("submit", (event) => {
  if (!event.target.matches("[data-results]")) return;
  event.preventDefault();
  const results = [...event.target.querySelectorAll("textarea")].map((each) => ({ id: each.name, content: each.value }));
  send({ results }).then(() => box.focus());
});

async function showRaw(side) {
  const response = await ask(`${address}/prompt?side=${side}`);
  const found = await response.json();
  if (!response.ok) return notice(`${found.error} (${found.hint})`);
  by("raw-prompt").textContent = found.prompt;
  by("raw-ids").textContent = found.ids.join(" ");
  by("raw-count").textContent = `(${found.ids.length})`;
  by("raw").showModal();
}
by("close").addEventListener("click", () => by("raw").close());

// ---- images, audio, videos: offered where every model of the chat takes them

function offerFiles() {
  const features = JSON.parse(by("engines").dataset.features);
  const takes = (kind) => features.length > 0 && features.every((each) => each.includes(kind));
  const kinds = [["images", "image/"], ["audio", "audio/"], ["videos", "video/"]].filter(([name]) => takes(name));
  by("attach").hidden = !kinds.length;
  const types = by("files").dataset.types.split(",");
  by("files").accept = types.filter((type) => kinds.some(([, start]) => type.startsWith(start))).join(",");
}
document.addEventListener("renewed", offerFiles);
offerFiles();

by("files").addEventListener("change", async () => {
  for (const file of by("files").files) await attach(file);
  by("files").value = "";
  showAttached();
});

async function attach(file) {
  if (file.size > mediaBytes) {
    problem(fill(said.large, { name: file.name, most: `${Math.round(mediaBytes / 2 ** 20)} MiB` }));
    return;
  }
  const headers = { "Content-Type": file.type };
  const response = await ask(`${root}/chat/${composer.dataset.id}/media`, { method: "POST", headers, body: file });
  const found = await response.json().catch(() => ({ error: response.statusText }));
  if (response.ok) attached.push({ ...found, label: file.name });
  else problem(found.error);
}

function showAttached() {
  by("attached").replaceChildren(...attached.map((each) => {
    const item = document.createElement("li");
    const remove = document.createElement("button");
    item.className = "tag";
    item.append(each.label, " ");
    remove.type = "button";
    remove.className = "plain";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `${said.remove} ${each.label}`);
    remove.addEventListener("click", () => {
      attached = attached.filter((other) => other !== each);
      showAttached();
    });
    item.append(remove);
    return item;
  }));
}

// ---- on arrival

box.value = sessionStorage.getItem(kept) ?? "";
toEnd(true);
if (by("thread").dataset.busy) {
  setBusy(true);
  ask(`${address}/events`).then(follow).finally(() => setBusy(false));
}
if (matchMedia("(min-width: 80rem)").matches) by("settings").open = true;
composer.dataset.turns = "0"; // this module listens
