// Shared by all pages: parts that renew themselves, forms that ask first, and the server's absence.
//
// <div id="list" data-poll="/runs/list" data-every="1000"> is replaced by what that address gives,
// morphed so that focus and selection stay. The new part may say another data-every; without one,
// it is not asked for again. Nothing is asked for while the page is hidden.

const words = JSON.parse(document.body.dataset.words);
const slowest = 8000; // ms between two requests while the server does not answer
let failures = 0;

export const root = document.body.dataset.root;

/** Show a message at the top of the page: text, never HTML. */
export function notice(text, tone = "bad") {
  const box = document.createElement("div");
  box.className = `box ${tone}`;
  box.textContent = text;
  document.getElementById("notices").replaceChildren(box);
}

/** fetch that notes whether the server answers. Throws on a network error. */
export async function ask(address, options = {}) {
  try {
    const response = await fetch(address, { credentials: "same-origin", ...options });
    present();
    return response;
  } catch (error) {
    if (error.name !== "AbortError") absent();
    throw error;
  }
}

/** fetch of the API: the JSON value. An error's text is shown, and thrown. */
export async function api(path, options = {}) {
  const response = await ask(`${root}/api/v1${path}`, options);
  const value = await response.json();
  if (!response.ok) {
    notice(value.hint ? `${value.error} (${value.hint})` : value.error);
    throw new Error(value.error);
  }
  return value;
}

function absent() {
  failures += 1;
  const box = document.getElementById("gone");
  box.className = "box warn";
  box.textContent = words.gone;
  box.hidden = false;
  document.body.dataset.server = "gone";
  for (const button of document.querySelectorAll("button[type=submit]:not(:disabled)")) {
    button.disabled = true;
    button.dataset.paused = "";
  }
}

function present() {
  if (!failures) return;
  failures = 0;
  document.body.dataset.server = "here";
  const box = document.getElementById("gone");
  box.className = "box good";
  box.textContent = words.back;
  setTimeout(() => { if (!failures) box.hidden = true; }, 4000);
  for (const button of document.querySelectorAll("[data-paused]")) {
    button.disabled = false;
    delete button.dataset.paused;
  }
}

/** ms until something is asked again that should be asked every so often. */
export function pause(every) {
  return failures ? Math.min(slowest, 1000 * 2 ** (failures - 1)) : every;
}

/** Call `work` every so often while the page is seen. It gives the ms to the next call, or 0. */
export function repeat(work, every) {
  const next = async () => {
    if (document.hidden) {
      document.addEventListener("visibilitychange", next, { once: true });
      return;
    }
    let again = every;
    try { again = await work() ?? every; } catch { /* of the network: said by ask() */ }
    if (again) setTimeout(next, pause(again));
  };
  setTimeout(next, every);
}

function renew(id) {
  const element = document.getElementById(id);
  repeat(async () => {
    const now = document.getElementById(id);
    if (!now) return 0;
    const headers = { "HX-Request": "true" };
    if (now.dataset.tag) headers["If-None-Match"] = now.dataset.tag;
    const response = await ask(now.dataset.poll, { headers });
    if (response.status === 200) {
      const text = await response.text();
      await htmx.swap({ text, target: now, swap: "outerMorph", sourceElement: now });
      const made = document.getElementById(id);
      if (made) made.dataset.tag = response.headers.get("ETag") ?? "";
      document.dispatchEvent(new CustomEvent("renewed", { detail: id }));
    } else if (response.status !== 304) {
      if (response.status === 401) location.reload();
      return slowest;
    }
    return Number(document.getElementById(id)?.dataset.every ?? 0);
  }, Number(element.dataset.every));
}

for (const element of document.querySelectorAll("[data-poll]")) renew(element.id);

// A form asks first, in the browser's own words where it has some.
document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) {
    event.preventDefault();
    event.stopImmediatePropagation();
  }
}, true);

// A form that was sent cannot be sent twice.
document.addEventListener("htmx:before:request", () => { document.getElementById("notices").replaceChildren(); });
document.addEventListener("htmx:error", (event) => { if (event.detail?.error instanceof TypeError) absent(); });

// Buttons that copy a text.
document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  await navigator.clipboard.writeText(button.dataset.copy);
  button.classList.add("done");
});

// Select that opens an address, such as a sort order: data-go on a form sends it at once.
document.addEventListener("change", (event) => {
  if (event.target.form?.hasAttribute("data-go")) event.target.form.requestSubmit();
});
