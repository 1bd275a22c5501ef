// One unit: its map, the patch that it sees, and its projection, with the rules of the deconvnet to take apart.

import { latest } from "./api.js";
import { ARROWS, cellAt, choice, clamp, el, number, onDrag, overlay, paintRGB, paintValues, rgb } from "./dom.js";
import { showField } from "./image.js";
import { drawNeighbors } from "./neighbors.js";
import { pin } from "./pins.js";
import { isPaper, layerOf, network, on, rules, state, unitName, update } from "./state.js";

const METHODS = [["deconvnet", "deconvnet"], ["guided", "guided backprop"], ["gradient", "gradient"]];
const map = el("canvas", { "aria-hidden": "true" });
const cursor = el("i", { hidden: true });
const cells = el("div", { class: "cell", id: "unit-map", tabindex: "0", role: "application", "aria-label": "Positions of the map: arrow keys move" }, map, cursor);
const pictures = Object.fromEntries(["patch", "projection", "paper"].map((name) => [name, el("canvas", { id: name, role: "img" })]));
const title = el("h2", { id: "unit-title" });
const facts = el("p", { class: "soft", id: "unit-facts", role: "status" });
const compared = el("p", { class: "soft", id: "similarity" });
const paper = el("figure", {}, el("figcaption", {}, "the paper's rules"), pictures.paper);
const altered = el("figcaption", {});
let current = null; // the answer that is shown

export function drawUnit() {
  const flag = (name, text, marks, otherwise) => {
    const box = el("input", { type: "checkbox", "data-rule": name, change: () => update({ [name]: box.checked ? marks : otherwise }) });
    return el("label", {}, Object.assign(box, { marks }), text);
  };
  const method = choice("Backward pass", METHODS, state.method, (value) => update({ method: value }));
  const apart = el("details", { id: "apart", open: !isPaper() }, el("summary", {}, "Take it apart"),
    el("p", { class: "why" }, "Change a rule of the deconvnet, and compare with the paper's projection."),
    flag("method", "rectification off: negative signals pass too", "none", "deconvnet"),
    flag("switches", "switches off: unpool each value to the corner of its window", 0, 1),
    flag("collision", "overwrite, instead of adding, where pooling windows share a maximum", "overwrite", "sum"),
    network.normalizes ? flag("normalization", "pass back through the normalization, which the paper skips", 1, 0) : null);
  const mark = () => {
    method.press(state.method);
    for (const box of apart.querySelectorAll("[data-rule]")) box.checked = state[box.dataset.rule] === box.marks;
  };
  on(["method", "switches", "collision", "normalization"], mark);
  mark();
  cells.addEventListener("keydown", steer);
  onDrag(cells, (event) => { if (current) move(cellAt(event, cells, ...current.size)); });
  on(["image", "frame", "layer", "unit", "at", "method", "switches", "collision", "normalization", "view"], load);
  return el("section", { class: "card", id: "unit" },
    el("div", { class: "title" }, title, el("button", { class: "button", type: "button", id: "pin", click: () => current && pin(current) }, "Pin")),
    facts,
    el("div", { class: "trio" },
      el("figure", {}, el("figcaption", {}, "feature map"), cells),
      el("figure", {}, el("figcaption", {}, "receptive field"), pictures.patch),
      el("figure", {}, altered, pictures.projection), paper),
    compared, el("div", { class: "bar" }, method), apart, drawNeighbors());
}

async function load() {
  if (state.unit === null || state.view !== "features") return;
  const wanted = { image: state.image, layer: state.layer, unit: state.unit, at: state.at?.join(",") };
  const answer = await latest("unit", { ...wanted, ...rules() });
  if (!answer || answer.layer !== state.layer || answer.unit !== state.unit) return;
  current = answer;
  show(answer);
}

function show({ layer, unit, at, activation, box, size: [rows, columns], maximum, similarity, ...arrays }) {
  const spatial = rows * columns > 1, isOutput = layer === network.layers.at(-1).name;
  title.textContent = isOutput ? `${unitName(layer, unit)}, ${network.classes[unit]}` : unitName(layer, unit);
  const place = spatial ? `row ${at[0]}, column ${at[1]}: ` : "";
  facts.textContent = `${place}activation ${number(activation, 4)}${activation === 0 ? ", nothing to project" : ""}; receptive field ${box[3] - box[1]} × ${box[2] - box[0]} pixels`;
  facts.dataset.activation = activation;
  facts.dataset.key = `${layer}/${unit}@${at}`;
  paintValues(map, arrays.map.data, columns, 0, Math.max(maximum, 1e-12), network.heat.map(rgb));
  cells.parentNode.hidden = !spatial;
  overlay(cursor, [at[0], at[1], at[0] + 1, at[1] + 1], rows, columns);
  for (const name of Object.keys(pictures)) paintRGB(pictures[name], arrays[name]);
  pictures.patch.setAttribute("aria-label", `The pixels that ${unitName(layer, unit)} sees`);
  pictures.projection.setAttribute("aria-label", `The projection of ${unitName(layer, unit)}`);
  altered.textContent = isPaper() ? "projection" : "changed rules";
  paper.hidden = isPaper();
  paper.parentNode.classList.toggle("four", !isPaper());
  compared.hidden = isPaper();
  compared.textContent = similarity === null ? "One of the two projections is zero." : `Cosine similarity with the paper's projection: ${number(similarity, 3)}`;
  showField(layerOf(layer).field ? box : null);
}

function move(at) {
  update({ at: [clamp(at[0], 0, current.size[0] - 1), clamp(at[1], 0, current.size[1] - 1)] });
}

function steer(event) {
  const step = ARROWS[event.key];
  if (!step || !current) return;
  event.preventDefault();
  const [row, column] = state.at || current.at;
  move([row + step[0], column + step[1]]);
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "p" || event.ctrlKey || event.altKey || event.metaKey || event.target.closest("input, select, dialog")) return;
  if (current && state.view === "features") pin(current);
});

