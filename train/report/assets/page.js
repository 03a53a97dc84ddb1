// Curves and sliders of a report. The page's data are JSON in its element #data; nothing is fetched.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const HEIGHT = 200, LEFT = 52, RIGHT = 10, TOP = 8, BOTTOM = 36;

function element(name, attributes, parent, text) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  parent.append(made);
  return made;
}

function shown(value) {
  if (value === null) return "not finite";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-4)) return value.toExponential(2);
  return Number(value.toPrecision(4)).toLocaleString("en", { maximumFractionDigits: 8 });
}

function duration(seconds) {
  if (seconds < 60) return `${Number(seconds.toPrecision(3))} s`;
  const minutes = Math.floor(Math.round(seconds) / 60), hours = Math.floor(minutes / 60);
  const two = (n) => String(n).padStart(2, "0");
  return hours ? `${hours} h ${two(minutes % 60)} min` : `${minutes} min ${two(Math.round(seconds) % 60)} s`;
}

// Round numbers from low to high, about `count` of them; of times, whole parts of minutes, hours and days.
function ticks(low, high, count, times) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const round = [1, 2, 5, 10].map((factor) => factor * power);
  const whole = [60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200, 86400, 172800, 432000, 864000];
  const steps = times && raw > 30 ? whole : round;
  const step = steps.find((candidate) => candidate >= raw * 0.999) ?? round[3];
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

// Powers of ten within [low, high], with 2 and 5 times them where there are few.
function powers(low, high) {
  const found = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
    for (const factor of Math.log10(high / low) < 2.5 ? [1, 2, 5] : [1]) found.push(factor * 10 ** e);
  const inside = found.filter((value) => value >= low * 0.999 && value <= high * 1.001);
  const stride = Math.ceil(inside.length / 6);
  return inside.filter((_, i) => i % stride === 0);
}

function extent(lists) {
  let low = Infinity, high = -Infinity;
  for (const list of lists)
    for (const value of list) if (value !== null) { low = Math.min(low, value); high = Math.max(high, value); }
  return [low, high];
}

class Chart {
  constructor(figure, data) {
    this.data = data;
    this.plot = figure.querySelector(".plot");
    this.output = figure.querySelector("output");
    this.axis = Object.keys(data.axes)[0];
    new ResizeObserver(() => this.draw()).observe(this.plot);
  }

  choose(axis) {
    if (!(axis in this.data.axes)) return;
    this.axis = axis;
    this.width = 0;
    this.draw();
  }

  scales() {
    const lines = this.data.lines;
    let [x0, x1] = extent(lines.map((line) => line.x[this.axis]));
    let [y0, y1] = extent(lines.flatMap((line) => [line.y, line.low ?? [], line.high ?? []]));
    if (x0 === Infinity) [x0, x1] = [0, 1];
    if (y0 === Infinity) [y0, y1] = [0, 1];
    if (x1 === x0) x1 = x0 + 1;
    this.log = this.data.log && y0 > 0;
    if (this.log && y1 < y0 * 1.1) [y0, y1] = [y0 / 1.1, y1 * 1.1];
    if (y0 === 0 && y1 === 0) y1 = 1;
    if (!this.log) {
      const pad = (y1 - y0) * 0.05 || Math.abs(y1) * 0.05 || 1;
      [y0, y1] = [y0 - pad, y1 + pad];
    }
    const measure = this.log ? Math.log : (value) => value;
    const [m0, m1] = [measure(y0), measure(y1)];
    this.x = (value) => LEFT + ((value - x0) / (x1 - x0)) * (this.width - LEFT - RIGHT);
    this.y = (value) => HEIGHT - BOTTOM - ((measure(value) - m0) / (m1 - m0)) * (HEIGHT - BOTTOM - TOP);
    this.limits = { x0, x1, y0, y1 };
  }

  draw() {
    const width = Math.round(this.plot.clientWidth);
    if (!width || width === this.width) return;
    this.width = width;
    this.scales();
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    svg.setAttribute("role", "img");
    svg.setAttribute("tabindex", "0");
    svg.setAttribute("aria-label", this.data.title + ": " + this.data.lines.map((line) => this.spoken(line)).join("; "));
    this.frame(svg);
    this.data.lines.forEach((line) => this.line(svg, line));
    this.cursor = element("line", { class: "cursor", y1: TOP, y2: HEIGHT - BOTTOM, visibility: "hidden" }, svg);
    svg.addEventListener("pointermove", (event) => this.point(this.nearest(event)));
    svg.addEventListener("pointerdown", (event) => this.point(this.nearest(event)));
    svg.addEventListener("pointerleave", () => this.rest());
    svg.addEventListener("blur", () => this.rest());
    svg.addEventListener("keydown", (event) => this.key(event));
    this.plot.replaceChildren(svg);
    this.rest();
  }

  frame(svg) {
    const { x0, x1, y0, y1 } = this.limits, times = this.axis === "seconds";
    for (const value of this.log ? powers(y0, y1) : ticks(y0, y1, 4)) {
      const y = this.y(value);
      element("line", { class: "grid", x1: LEFT, x2: this.width - RIGHT, y1: y, y2: y }, svg);
      element("text", { x: LEFT - 6, y: y + 4, "text-anchor": "end" }, svg, shown(value));
    }
    const count = Math.max(2, Math.floor(this.width / (times ? 110 : 80)));
    for (const value of ticks(x0, x1, count, times)) {
      const x = this.x(value), anchor = x > this.width - 30 ? "end" : x < LEFT + 10 ? "start" : "middle";
      element("text", { x, y: HEIGHT - BOTTOM + 15, "text-anchor": anchor }, svg, this.where(value));
    }
    const middle = (LEFT + this.width - RIGHT) / 2;
    element("text", { x: middle, y: HEIGHT - 4, "text-anchor": "middle" }, svg, this.data.axes[this.axis]);
  }

  line(svg, line) {
    const x = line.x[this.axis], kind = `k${line.colour % 8}`;
    const at = (i, values) => `${this.x(x[i]).toFixed(1)} ${this.y(values[i]).toFixed(1)}`;
    if (line.low) {
      const kept = x.map((_, i) => i).filter((i) => line.low[i] !== null && line.high[i] !== null);
      const there = kept.map((i) => at(i, line.high)), back = kept.map((i) => at(i, line.low)).reverse();
      if (kept.length > 1) element("path", { class: `band ${kind}`, d: `M${[...there, ...back].join("L")}Z` }, svg);
    }
    const runs = [[]];
    line.y.forEach((value, i) => (value === null ? runs.push([]) : runs.at(-1).push(i)));
    for (const run of runs) {
      if (run.length > 1)
        element("path", { class: `line ${kind}`, d: "M" + run.map((i) => at(i, line.y)).join("L") }, svg);
      for (const i of x.length <= 30 || run.length === 1 ? run : [])
        element("circle", { class: kind, cx: this.x(x[i]), cy: this.y(line.y[i]), r: 2.5 }, svg);
    }
  }

  where(value) {
    return this.axis === "seconds" ? duration(value) : shown(value);
  }

  spoken(line) {
    const last = line.y.length - 1, x = line.x[this.axis];
    if (last < 0) return "no values";
    const name = line.name ? `${line.name} ` : "";
    return `${name}from ${shown(line.y[0])} at ${this.where(x[0])} to ${shown(line.y[last])} at ${this.where(x[last])}`;
  }

  nearest(event) {
    const box = this.plot.firstChild.getBoundingClientRect();
    const { x0, x1 } = this.limits, share = (event.clientX - box.left - LEFT) / (box.width - LEFT - RIGHT);
    return x0 + (x1 - x0) * Math.min(1, Math.max(0, share));
  }

  // Say each line's value at the point of it that is nearest to x.
  point(x) {
    const said = [];
    let best = null;
    for (const line of this.data.lines) {
      const xs = line.x[this.axis];
      if (!xs.length) continue;
      let i = 0;
      xs.forEach((value, k) => { if (Math.abs(value - x) < Math.abs(xs[i] - x)) i = k; });
      if (best === null || Math.abs(xs[i] - x) < Math.abs(best - x)) best = xs[i];
      const spread = line.low && line.low[i] !== null ? ` (${shown(line.low[i])} to ${shown(line.high[i])})` : "";
      said.push(`${line.name ? line.name + " " : ""}${shown(line.y[i])}${spread}`);
    }
    if (best === null) return;
    this.at = best;
    this.cursor.setAttribute("x1", this.x(best));
    this.cursor.setAttribute("x2", this.x(best));
    this.cursor.setAttribute("visibility", "visible");
    this.output.textContent = `${this.where(best)}: ${said.join(", ")}`;
  }

  rest() {
    this.at = null;
    this.cursor.setAttribute("visibility", "hidden");
    const [line, ...others] = this.data.lines;
    const last = others.length || !line ? "" : `last: ${shown(line.y.at(-1) ?? null)}`;
    this.output.textContent = this.log ? [last, "logarithmic"].filter(Boolean).join(", ") : last;
  }

  key(event) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    const all = [...new Set(this.data.lines.flatMap((line) => line.x[this.axis]))].sort((a, b) => a - b);
    const now = this.at === null ? (by > 0 ? -1 : all.length) : all.indexOf(this.at);
    const next = all[Math.min(all.length - 1, Math.max(0, now + by))];
    if (next !== undefined) this.point(next);
  }
}

function slider(figure) {
  const input = figure.querySelector("input"), output = figure.querySelector("output");
  const frames = [...figure.querySelectorAll("img")];
  const show = () => {
    frames.forEach((frame, i) => (frame.hidden = i !== Number(input.value)));
    output.textContent = frames[Number(input.value)].dataset.when;
    input.setAttribute("aria-valuetext", output.textContent);
  };
  input.addEventListener("input", show);
  show();
}

const charts = JSON.parse(document.getElementById("data").textContent).charts;
const drawn = [...document.querySelectorAll(".chart")].map((figure) => new Chart(figure, charts[Number(figure.dataset.chart)]));
drawn.forEach((chart) => chart.draw());
document.querySelectorAll("input[name=axis]").forEach((input) =>
  input.addEventListener("change", () => drawn.forEach((chart) => chart.choose(input.value))));
document.querySelectorAll(".slider").forEach(slider);
