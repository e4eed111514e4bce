// The page Compare: one metric of several runs on one axis, drawn by uPlot.

import { api } from "./app.js";
import { axisStyle, colour, format, smooth } from "./plots.js";

const box = document.getElementById("comparison");
const runs = JSON.parse(box.dataset.runs);
const words = JSON.parse(box.dataset.words);
const by = (id) => document.getElementById(id);
const dashes = [[], [8, 4], [2, 3], [10, 3, 2, 3]]; // lines differ by more than their colour
let curves = {}; // name → columns
let plot = null;
let data = [[]];

function legend(at = null) {
  const [x, ...all] = data;
  const parts = runs.map((name, number) => {
    let place = at ?? x.length - 1;
    if (at == null) while (place > 0 && all[number][place] == null) place -= 1;
    const part = document.createElement("span");
    part.className = `line-${number}`;
    part.append(document.createElement("i"), `${name} ${format(all[number]?.[place])}`);
    return part;
  });
  const head = document.createElement("span");
  head.textContent = at == null ? "" : `${words[by("axis").value]} ${format(x[at])}`;
  by("legend").replaceChildren(head, ...parts);
}

function table() {
  if (!by("values").open) return;
  const made = document.createElement("table");
  const head = made.createTHead().insertRow();
  for (const text of [words[by("axis").value], ...runs]) {
    const cell = document.createElement("th");
    cell.scope = "col";
    cell.textContent = text;
    head.append(cell);
  }
  const body = made.createTBody();
  for (let at = Math.max(0, data[0].length - 500); at < data[0].length; at += 1) {
    const row = body.insertRow();
    for (const column of data) row.insertCell().textContent = format(column[at]);
  }
  by("rows").replaceChildren(made);
}

function draw() {
  plot?.destroy();
  plot = null;
  const axis = by("axis").value;
  const isLog = by("log-axis").checked;
  const tables = runs.map((name) => {
    const { value, ...columns } = curves[name] ?? { value: [], [axis]: [] };
    const y = smooth(value, Number(by("smoothing").value)).map((each) => (isLog && each <= 0 ? null : each));
    return [columns[axis], y];
  });
  data = uPlot.join(tables);
  box.dataset.points = String(data[0].length);
  if (!data[0].length) {
    by("plot").textContent = words.none;
    return;
  }
  by("plot").textContent = "";
  const style = axisStyle();
  const shown = (_, all) => all.map(format);
  plot = new uPlot({
    width: Math.max(200, by("plot").clientWidth),
    height: 320,
    legend: { show: false },
    scales: { x: { time: false }, y: { distr: isLog ? 3 : 1 } },
    axes: [{ ...style, label: words[axis], values: shown }, { ...style, size: 64, label: by("metric").value, values: shown }],
    series: [{}, ...runs.map((_, at) => ({
      stroke: colour(`line-${at}`), width: 1.8, dash: dashes[at % dashes.length], spanGaps: true, points: { show: data[0].length < 60 },
    }))],
    hooks: { setCursor: [(u) => legend(u.cursor.idx)] },
  }, data, by("plot"));
  legend();
  table();
}

async function load() {
  const names = runs.map(encodeURIComponent).join("/");
  const found = await api(`/compare?runs=${names}&metric=${encodeURIComponent(by("metric").value)}`);
  curves = found.curves;
  draw();
}

by("metric").addEventListener("change", load);
by("axis").addEventListener("change", draw);
by("log-axis").addEventListener("change", draw);
by("smoothing").addEventListener("input", draw);
by("values").addEventListener("toggle", table);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
let width = 0;
new ResizeObserver(() => {
  if (by("plot").clientWidth === width) return;
  width = by("plot").clientWidth;
  plot?.setSize({ width: Math.max(200, width), height: 320 });
}).observe(by("plot"));
if (by("metric").value) load();
else draw();
