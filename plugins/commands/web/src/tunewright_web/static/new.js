// The wizard of a new run: every change is kept, choices of plugins show their options, long looks
// are loaded by themselves. Without this script, the buttons do the same.
import { api, ask, notice } from "./app.js";

const form = () => document.getElementById("step");
let order = 0;

for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;

async function save() {
  const sent = ++order;
  const body = new URLSearchParams(new FormData(form()));
  body.set("do", "save");
  const response = await ask(form().action, { method: "POST", body, headers: { "HX-Request": "true" } });
  const text = await response.text();
  if (!response.ok) {
    notice(new DOMParser().parseFromString(text, "text/html").body.textContent.trim().replace(/\s+/g, " "));
    return;
  }
  if (sent !== order) return; // a later change is on its way
  const fresh = new DOMParser().parseFromString(text, "text/html");
  if (response.headers.get("Tunewright-Fields") === "changed") swap(fresh);
  else update(fresh);
  const saved = document.getElementById("saved");
  saved.textContent = saved.dataset.saved;
}

// The whole form again: folds that were open stay open, the focus stays where it was.
function swap(fresh) {
  const focused = document.activeElement?.id;
  const open = [...document.querySelectorAll("#step details[open][id]")].map((each) => each.id);
  const preview = document.getElementById("preview");
  const filter = document.getElementById("filter")?.value ?? "";
  document.getElementById("wizard").replaceWith(fresh.getElementById("wizard"));
  for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  if (preview?.querySelector("[data-state]")) document.getElementById("preview")?.replaceWith(preview);
  for (const element of document.querySelectorAll(".needs-script")) element.hidden = false;
  if (filter) { document.getElementById("filter").value = filter; find(filter); }
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
}

// Only the recipe and the problems: nobody's typing is disturbed.
function update(fresh) {
  document.getElementById("recipe").replaceWith(fresh.getElementById("recipe"));
  document.getElementById("problems").replaceWith(fresh.getElementById("problems"));
  for (const button of fresh.querySelectorAll(".actions button")) {
    const own = document.querySelector(`.actions button[value="${button.value}"]`);
    if (own) own.disabled = button.disabled;
  }
  for (const field of form().querySelectorAll("[data-field]")) {
    const now = fresh.querySelector(`[data-field="${CSS.escape(field.dataset.field)}"]`);
    if (!now) continue;
    const [before, after] = [field.querySelector(".problem"), now.querySelector(".problem")];
    before?.remove();
    if (after) field.querySelector(".help").before(after);
    field.classList.toggle("wrong", Boolean(after));
    const input = field.querySelector("input, select, textarea");
    const made = now.querySelector("input, select, textarea");
    input.toggleAttribute("aria-invalid", false);
    if (after) input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", made.getAttribute("aria-describedby"));
  }
}

document.addEventListener("change", (event) => {
  if (event.target.form !== form() || !form() || !event.target.name || event.target.id === "filter") return;
  save().catch(() => {});
});

// ---- filter of options by name

function find(text) {
  const words = text.trim().toLowerCase().split(/\s+/).filter(Boolean);
  let hits = 0;
  for (const field of document.querySelectorAll("#step [data-find]")) {
    const name = field.dataset.find.toLowerCase().replaceAll("_", " ");
    const fits = words.every((word) => name.includes(word.replaceAll("_", " ")));
    field.hidden = words.length > 0 && !fits;
    hits += fits;
  }
  for (const fold of document.querySelectorAll("#step details:not(.longer)")) {
    const has = [...fold.querySelectorAll("[data-find]")].some((field) => !field.hidden);
    if (words.length) {
      if (fold.dataset.was === undefined) fold.dataset.was = fold.open ? "1" : "";
      fold.open = has;
      fold.hidden = !has;
    } else if (fold.dataset.was !== undefined) {
      fold.open = fold.dataset.was === "1";
      fold.hidden = false;
      delete fold.dataset.was;
    }
  }
  for (const card of document.querySelectorAll("#step > .card")) {
    card.hidden = words.length > 0 && ![...card.querySelectorAll("[data-find]")].some((field) => !field.hidden);
  }
  const said = document.getElementById("filter-said");
  said.textContent = words.length && !hits ? said.dataset.none : "";
}

document.addEventListener("input", (event) => {
  if (event.target.id === "filter") find(event.target.value);
});
document.addEventListener("keydown", (event) => {
  if (event.target.id === "filter" && event.key === "Enter") event.preventDefault();
});

// ---- parts that take a while

async function load(element) {
  const response = await ask(element.dataset.load, { headers: { "HX-Request": "true" } });
  const text = await response.text();
  const head = element.querySelector("header");
  element.replaceChildren(...(head ? [head] : []));
  element.append(...new DOMParser().parseFromString(text, "text/html").body.childNodes);
}
for (const element of document.querySelectorAll("[data-load]")) load(element).catch(() => {});

// ---- files

document.addEventListener("change", async (event) => {
  const input = event.target;
  if (input.type !== "file" || !input.files.length) return;
  const file = input.files[0];
  if (input.dataset.into) {
    document.getElementById(input.dataset.into).value = await file.text();
    document.getElementById("file-name").value = file.name;
    return;
  }
  const bar = document.getElementById("upload-bar");
  bar.hidden = false;
  bar.removeAttribute("value");
  try {
    const made = await api(`/uploads?name=${encodeURIComponent(file.name)}`, { method: "POST", body: file });
    if ("reload" in input.dataset) location.reload();
    const name = `data.${input.dataset.row}.path`;
    const field = document.getElementById(`f-${name}`);
    if (field) {
      field.value = made.path;
      field.focus();
      await save();
    }
  } catch { /* said by api() */ } finally {
    bar.hidden = true;
    input.value = "";
  }
});

// ---- focus: the summary after a check, the field that a link names

function reveal() {
  const id = decodeURIComponent(location.hash.slice(1));
  const target = id && document.getElementById(id);
  if (!target || target.hidden) return;
  for (let fold = target.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  target.scrollIntoView({ block: "center" });
  target.focus();
}
addEventListener("hashchange", reveal);
document.addEventListener("click", (event) => {
  const link = event.target.closest('#problems a[href^="#"]');
  if (link && link.hash === location.hash) reveal();
});
if (location.hash) reveal();

