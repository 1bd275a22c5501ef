// The feature maps of a layer, strongest first. A touch selects a unit and a position.

import { latest } from "./api.js";
import { ARROWS, byId, cellAt, el, number, paintValues, rgb } from "./dom.js";
import { layerChoice } from "./network.js";
import { layerOf, network, on, state, unitName, update } from "./state.js";

const COUNT = 24; // maps per request
const grid = el("div", { class: "maps", id: "maps", role: "listbox", "aria-label": "Feature maps, strongest first" });
const more = el("button", { class: "button", type: "button", id: "more", click: () => load(grid.children.length, COUNT) }, "More");
const title = el("h2", {});
const why = el("p", { class: "why" });
let shown = ""; // the image and layer of the grid

export function drawFeatures() {
  grid.addEventListener("keydown", steer);
  on(["image", "layer", "view"], () => { if (state.view === "features") load(0, COUNT); });
  on(["frame"], () => { if (state.view === "features") load(0, Math.max(COUNT, grid.children.length)); });
  on(["unit", "layer"], mark);
  return el("section", { class: "panel", id: "features" }, title, why, layerChoice(), grid, el("div", { class: "bar" }, more));
}

async function load(start, count) {
  const { image, layer } = state, key = `${image} ${layer}`;
  if (start === 0 && key === shown && !image.startsWith("webcam-")) return;
  const answer = await latest("maps", { image, layer, start, count: Math.min(count, 64) });
  if (!answer || image !== state.image || layer !== state.layer) return;
  const { size: [rows, columns], field, maps } = layerOf(layer);
  title.textContent = `${layer}: ${maps} ${rows * columns > 1 ? "feature maps" : "units"}`;
  why.textContent = rows * columns > 1
    ? `Strongest first; each map has ${rows} × ${columns} positions, scaled to its own maximum. The receptive field has ${field} × ${field} pixels. Touch a map.`
    : "Strongest first. A unit of a dense layer sees the whole image.";
  answer.units.forEach((unit, i) => setTile(grid.children[start + i] || grid.appendChild(newTile()), answer, unit, i));
  if (start === 0) [...grid.children].slice(answer.units.length).forEach((node) => node.remove());
  grid.dataset.shown = key;
  more.hidden = grid.children.length >= answer.total;
  shown = key;
  mark();
  if (state.unit === null) update({ unit: answer.units[0] });
}

// A tile keeps its place when the next frame of a webcam brings another unit there, so that it can be pressed.
function newTile() {
  const canvas = el("canvas", { "aria-hidden": "true" }), text = el("span", {});
  const select = (event) => {
    const { rows, columns, unit } = node.dataset;
    const at = event.detail && rows * columns > 1 ? cellAt(event, canvas, rows, columns) : null; // a click by keyboard has no place
    node.focus({ preventScroll: true });
    update({ unit: Number(unit), at });
  };
  const node = el("button", { class: "map", type: "button", role: "option", tabindex: "-1", click: select }, canvas, text);
  return node;
}

function setTile(node, { layer, values, maps: { data, shape: [, rows, columns] } }, unit, i) {
  const size = rows * columns, name = unitName(layer, unit);
  paintValues(node.firstChild, data.subarray(i * size, (i + 1) * size), columns, 0, 255, network.heat.map(rgb));
  const isOutput = layer === network.layers.at(-1).name;
  node.lastChild.replaceChildren(isOutput ? network.classes[unit] : String(unit), " ", el("small", {}, number(values[i])));
  Object.assign(node.dataset, { unit, rows, columns });
  node.title = name;
  node.setAttribute("aria-label", `${name}, maximum ${number(values[i])}`);
}

function mark() {
  const tiles = [...grid.children], selected = tiles.find((node) => Number(node.dataset.unit) === state.unit);
  for (const node of tiles) {
    node.setAttribute("aria-selected", String(node === selected));
    node.tabIndex = -1;
  }
  if (tiles.length) (selected || tiles[0]).tabIndex = 0;
}

// Arrow keys move between features; the row below is found by its place on the page.
function steer(event) {
  const step = ARROWS[event.key], node = document.activeElement.closest(".map");
  if (!step || !node) return;
  event.preventDefault();
  const tiles = [...grid.children], perRow = tiles.filter((other) => other.offsetTop === tiles[0].offsetTop).length;
  const next = tiles[tiles.indexOf(node) + step[1] + step[0] * perRow];
  if (!next) return;
  next.focus();
  update({ unit: Number(next.dataset.unit), at: null });
}

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  (grid.querySelector("[tabindex='0']") || byId("view")).focus();
});
