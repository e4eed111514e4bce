// Shared by the pages that draw curves with uPlot.

/** A colour of the stylesheet: a canvas knows no CSS variables, an element with a class computes it. */
export function colour(kind) {
  const probe = document.createElement("span");
  probe.className = `probe ${kind}`;
  document.body.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

/** Exponential moving average, corrected for its beginning. weight: of what was before, below 1. */
export function smooth(values, weight) {
  if (!weight) return values;
  let last = null;
  let seen = 0;
  return values.map((value) => {
    if (value == null) return null;
    last = last == null ? (1 - weight) * value : weight * last + (1 - weight) * value;
    seen += 1;
    return last / (1 - weight ** seen);
  });
}

/** A number with five digits, short. */
export const format = (value) => {
  if (value == null) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${(value / 1e9).toPrecision(3)} G`;
  if (size >= 1e6) return `${(value / 1e6).toPrecision(3)} M`;
  if (value !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(2);
  return String(Number(value.toPrecision(5)));
};

/** Look of an axis. */
export function axisStyle() {
  const line = { stroke: colour("grid"), width: 1 };
  const font = "12px system-ui";
  return { stroke: colour("axis"), grid: line, ticks: line, font, labelFont: font, labelSize: 20 };
}
