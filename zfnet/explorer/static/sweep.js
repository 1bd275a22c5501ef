// Cover every position in turn: the maps of Figure 7, with a progress bar and cancel.

import { stream } from "./api.js";
import { ARROWS, cellAt, clamp, el, notice, number, onDrag, overlay, paintColors, paintValues, percent, rgb } from "./dom.js";
import { save } from "./share.js";
import { network, on, state, unitName, update } from "./state.js";

const OTHER = "#8a8a8a"; // classes beyond those with a color
const bar = el("progress", { id: "progress", max: "1", value: "0", hidden: true });
const start = el("button", { class: "button", type: "button", id: "sweep", click: run }, "Sweep");
const cancel = el("button", { class: "button", type: "button", id: "cancel", hidden: true, click: () => controller?.abort() }, "Cancel");
const keep = el("button", { class: "button", type: "button", id: "save-sweep", hidden: true, click: () => save(saved) }, "Save the maps");
const note = el("span", { class: "soft", role: "status", id: "sweep-note" });
const maps = el("div", { class: "sweeps" });
let controller = null, saved = null; // `saved`: the parameters of the maps that are shown

export function drawSweep() {
  on(["image", "target"], () => { controller?.abort(); maps.replaceChildren(); note.textContent = ""; keep.hidden = true; });
  return el("section", { id: "sweep-section" }, el("div", { class: "bar" }, start, cancel, bar, note, keep), maps);
}

function running(active) {
  start.disabled = active;
  bar.hidden = cancel.hidden = !active;
}

async function run() {
  const mine = controller = new AbortController();
  const { image, size, target } = state, stride = Math.max(4, Math.round(size / 4));
  running(true);
  bar.removeAttribute("value");
  note.textContent = "";
  try {
    await stream("sweep", { image, size, stride, target }, (line) => {
      if (line.error) throw new Error(line.error);
      if (line.total) bar.value = line.done / line.total;
      if (line.result) {
        show(line.result);
        saved = { view: "sweep", image, size, stride, target };
        keep.hidden = false;
      }
    }, mine.signal);
  } catch (error) {
    if (error.name !== "AbortError") notice(error.message);
    else note.textContent = "cancelled";
  }
  if (controller === mine) running(false);
}

function show(result) {
  const target = network.classes[result.target];
  const range = (values) => `${number(Math.min(...values.flat()), 3)} to ${number(Math.max(...values.flat()), 3)}`;
  const heat = (id, title, values, low) => figure(result, id, title, range(values), paintValues(el("canvas"), values.flat(), values[0].length, low ?? Math.min(...values.flat()), Math.max(...values.flat()), network.heat.map(rgb)), values);
  maps.replaceChildren(...[
    result.total && heat("total", `total of ${unitName(...result.strongest)}`, result.total),
    heat("logit", `logit of ${target}`, result.logit),
    heat("probability", `probability of ${target}`, result.probability, 0),
    labels(result)].filter(Boolean));
  note.textContent = `${result.boxes.length} × ${result.boxes[0].length} positions of ${result.size} pixels, every ${result.stride}`;
  maps.dataset.result = JSON.stringify({ target: result.target, size: result.size, stride: result.stride, probability: result.probability });
}

function labels(result) {
  const counts = new Map();
  for (const label of result.label.flat()) counts.set(label, (counts.get(label) || 0) + 1);
  const frequent = [...counts.entries()].sort((a, b) => b[1] - a[1]).slice(0, network.lines.length).map(([label]) => label);
  const color = (label) => network.lines[frequent.indexOf(label)] || OTHER;
  const node = figure(result, "label", "most probable class", `${counts.size} ${counts.size > 1 ? "classes" : "class"}`, paintColors(el("canvas"), result.label.flat().map(color), result.label[0].length), result.label);
  const others = counts.size - frequent.length;
  node.append(el("ul", { class: "legend" }, frequent.map((label) => el("li", {}, el("i", { class: "key", style: { background: color(label) } }), network.classes[label])),
    others > 0 ? el("li", {}, el("i", { class: "key", style: { background: OTHER } }), `${others} others`) : null));
  return node;
}

// A map whose cells put the square on the image.
function figure(result, id, title, range, canvas, values) {
  const rows = result.boxes.length, columns = result.boxes[0].length, cursor = el("i", { hidden: true });
  const text = el("figcaption", {}, title, el("small", {}, range));
  const cell = el("div", { class: "cell", tabindex: "0", role: "application", "aria-label": `${title}: arrow keys move the square` }, canvas, cursor);
  let at = [0, 0];
  const move = ([row, column]) => {
    at = [clamp(row, 0, rows - 1), clamp(column, 0, columns - 1)];
    overlay(cursor, [at[0], at[1], at[0] + 1, at[1] + 1], rows, columns);
    const value = values[at[0]][at[1]];
    cell.title = id === "label" ? network.classes[value] : id === "probability" ? percent(value) : number(value, 4);
    update({ size: result.size, box: result.boxes[at[0]][at[1]] });
  };
  onDrag(cell, (event) => move(cellAt(event, cell, rows, columns)));
  cell.addEventListener("keydown", (event) => {
    const step = ARROWS[event.key];
    if (!step) return;
    event.preventDefault();
    move([at[0] + step[0], at[1] + step[1]]);
  });
  return el("figure", { "data-map": id }, text, cell);
}

