// Curves of a run: drawn by uPlot from /runs/NAME/metrics, and lengthened by what comes after the
// cursor.
import { api } from "./app.js";
import { axisStyle, colour, format, smooth } from "./plots.js";

const box = document.getElementById("curves");
const words = JSON.parse(box.dataset.words);
const charts = document.getElementById("charts");
const run = box.dataset.run;
const points = 2000;
const order = ["loss", "learning_rate", "grad_norm", "tokens_per_second", "memory"];
const hidden = new Set(["epoch", "tokens"]);
const runs = new Map(); // name → {cursor, series}
const plots = new Map(); // title → {plot, element, lines}
const tools = { smoothing: 0, axis: "step", log: false, other: "" };

const path = (name) => `/runs/${encodeURIComponent(name)}`;

/** Add what is new to the curves of a run. Returns whether anything changed. */
function take(name, news) {
  const known = runs.get(name);
  const changed = news.reset || Object.keys(news.series).length > 0;
  if (news.reset || !known) {
    runs.set(name, { cursor: news.cursor, series: news.series });
    return changed;
  }
  known.cursor = news.cursor;
  for (const [key, added] of Object.entries(news.series)) {
    const old = known.series[key] ??= { step: [], value: [], seconds: [], tokens: [] };
    for (const column of ["step", "value", "seconds", "tokens"]) old[column].push(...added[column]);
  }
  return changed;
}

/** Group of a metric: loss and all evaluation losses are one chart. */
const chartOf = (key) => (key.startsWith("eval/") ? key.slice(key.lastIndexOf("/") + 1) : key);

/** Lines of each chart, in the order of charts. */
function wanted() {
  const found = new Map();
  const shown = [run, tools.other].filter((name) => runs.has(name));
  for (const name of shown) {
    for (const [key, columns] of Object.entries(runs.get(name).series)) {
      const title = chartOf(key);
      if (hidden.has(title)) continue;
      const label = key === title ? "" : key.slice(5, key.lastIndexOf("/"));
      const text = [shown.length > 1 ? name : "", label].filter(Boolean).join(" · ");
      if (!found.has(title)) found.set(title, []);
      found.get(title).push({ text: text || words[title] || title, columns });
    }
  }
  const place = (title) => (order.indexOf(title) + 1 || order.length + 1);
  return [...found].sort(([a], [b]) => place(a) - place(b) || a.localeCompare(b));
}

/** One x for all lines of a chart: uPlot wants aligned columns. */
function aligned(lines) {
  const tables = lines.map((line) => {
    const x = line.columns[tools.axis];
    const y = smooth(line.columns.value, Number(tools.smoothing));
    const log = tools.log ? y.map((value) => (value > 0 ? value : null)) : y;
    return [x, log];
  });
  return tables.length === 1 ? tables[0] : uPlot.join(tables, tables.map(() => [1]));
}

function options(title, lines, element) {
  const axis = axisStyle();
  return {
    width: Math.max(200, element.clientWidth),
    height: element.closest(".chart").dataset.first ? 320 : 200,
    legend: { show: false },
    cursor: { points: { size: 7 }, drag: { x: true, y: false } },
    scales: { x: { time: false }, y: { distr: tools.log ? 3 : 1 } },
    axes: [
      { ...axis, label: words[tools.axis], size: 32, labelSize: 18, labelGap: 0, labelFont: "12px system-ui", values: (_, all) => all.map(format) },
      { ...axis, size: 64, values: (_, all) => all.map(format) },
    ],
    series: [{}, ...lines.map((_, at) => ({ stroke: colour(`line-${at % 8}`), width: 1.6, spanGaps: lines.length > 1, points: { show: (u) => u.data[0].length < 60 } }))],
    hooks: { setCursor: [(u) => legend(title, u.cursor.idx)] },
  };
}

function legend(title, at = null) {
  const made = plots.get(title);
  if (!made) return;
  const [x, ...ys] = made.data;
  const place = at ?? x.length - 1;
  const parts = made.lines.map((line, number) => {
    const part = document.createElement("span");
    part.className = `line-${number % 8}`;
    let index = place;
    if (at == null) while (index > 0 && ys[number][index] == null) index -= 1;
    part.append(document.createElement("i"), `${line.text} ${format(ys[number][index])}`);
    return part;
  });
  const head = document.createElement("span");
  head.textContent = x.length ? `${words[tools.axis]} ${format(x[place])}` : "";
  made.legend.replaceChildren(head, ...parts);
}

function card(title) {
  const made = document.createElement("section");
  made.className = "card chart";
  made.dataset.chart = title;
  if (!charts.childElementCount) made.dataset.first = "yes";
  const name = document.createElement("h2");
  name.textContent = words[title] ?? title;
  const key = document.createElement("div");
  key.className = "legend";
  const plot = document.createElement("div");
  plot.className = "plot";
  plot.setAttribute("role", "img");
  plot.setAttribute("aria-label", name.textContent);
  const table = document.createElement("details");
  const summary = document.createElement("summary");
  summary.textContent = words.table;
  const rows = document.createElement("div");
  rows.className = "scroll";
  rows.tabIndex = 0;
  table.append(summary, rows);
  table.addEventListener("toggle", () => fill(title));
  made.append(name, key, plot, table);
  charts.append(made);
  return { element: plot, legend: key, table, rows };
}

/** The values as a table, when it is open: for readers and for copying. */
function fill(title) {
  const made = plots.get(title);
  if (!made.table.open) return;
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const text of [words[tools.axis], ...made.lines.map((line) => line.text)]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  const body = table.createTBody();
  const [x, ...ys] = made.data;
  for (let at = Math.max(0, x.length - 500); at < x.length; at += 1) {
    const row = body.insertRow();
    for (const value of [x[at], ...ys.map((y) => y[at])]) row.insertCell().textContent = value ?? "–";
  }
  made.rows.replaceChildren(table);
}

function draw(anew = false) {
  const all = wanted();
  box.dataset.points = String(runs.get(run)?.series.loss?.step.length ?? 0);
  if (!all.length) {
    if (!charts.querySelector(".empty")) {
      const empty = document.createElement("div");
      empty.className = "card empty";
      const head = document.createElement("h2");
      head.textContent = words.none;
      const text = document.createElement("p");
      text.textContent = words.none_text;
      empty.append(head, text);
      charts.replaceChildren(empty);
    }
    return;
  }
  charts.querySelector(".empty")?.remove();
  for (const [title, lines] of all) {
    const made = plots.get(title) ?? card(title);
    const data = aligned(lines);
    const same = made.lines?.map((line) => line.text).join() === lines.map((line) => line.text).join();
    Object.assign(made, { lines, data });
    plots.set(title, made);
    if (anew || !same || !made.plot) {
      made.plot?.destroy();
      made.plot = new uPlot(options(title, lines, made.element), data, made.element);
    } else {
      made.plot.setData(data);
    }
    legend(title);
    fill(title);
  }
  box.dataset.drawn = String(Number(box.dataset.drawn ?? 0) + 1);
}

async function load(name) {
  take(name, await api(`${path(name)}/metrics?points=${points}`));
}

async function renew() {
  const news = await api(`${path(run)}/metrics?points=${points}&after=${runs.get(run).cursor}`);
  if (take(run, news)) draw(news.reset);
  if (runs.get(run).series.loss?.step.length > 4 * points) await load(run); // thinned again
}

document.addEventListener("renewed", (event) => {
  const cursor = document.getElementById("head")?.dataset.cursor;
  if (event.detail === "head" && runs.has(run) && cursor !== runs.get(run).cursor) renew().catch(() => {});
});

const element = (id) => document.getElementById(id);
element("tools").addEventListener("submit", (event) => event.preventDefault());
element("smoothing").addEventListener("input", (event) => {
  tools.smoothing = event.target.value;
  element("smoothing-value").textContent = event.target.value;
  draw();
});
element("axis").addEventListener("change", (event) => { tools.axis = event.target.value; draw(true); });
element("log-axis").addEventListener("change", (event) => { tools.log = event.target.checked; draw(true); });
element("with")?.addEventListener("change", async (event) => {
  tools.other = event.target.value;
  if (tools.other && !runs.has(tools.other)) await load(tools.other).catch(() => {});
  draw(true);
});
let width = 0;
new ResizeObserver(() => {
  if (charts.clientWidth === width) return;
  width = charts.clientWidth;
  for (const made of plots.values()) made.plot?.setSize({ width: Math.max(200, made.element.clientWidth), height: made.plot.height });
}).observe(charts);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw(true));

load(run).then(() => draw(true)).catch(() => {});
