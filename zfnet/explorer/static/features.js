// The feature maps of a layer, strongest first. A touch selects a unit and a position.

import { latest } from "./api.js";
import { ARROWS, byId, cellAt, el, number, paintValues, rgb } from "./dom.js";
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
  return el("section", { class: "panel", id: "features" }, title, why, grid, el("div", { class: "bar" }, more));
}

async function load(start, count) {
  const { image, layer } = state, key = `${image} ${layer}`;
  if (start === 0 && key === shown && !image.startsWith("webcam-")) return;
  const answer = await latest("maps", { image, layer, start, count: Math.min(count, 64) });
  if (!answer || image !== state.image || layer !== state.layer) return;
  const { size: [rows, columns], field, maps } = layerOf(layer);
  title.textContent = `${layer}: ${maps} ${rows * columns > 1 ? "feature maps" : "units"}`;
  why.textContent = rows * columns > 1
    ? `Strongest first; each map has ${rows} × ${columns} positions, scaled to its own maximum. A unit sees ${field} × ${field} pixels. Touch a map.`
    : "Strongest first. A unit of a dense layer sees the whole image.";
  const tiles = answer.units.map((unit, i) => tile(answer, unit, i));
  if (start === 0) replaceTiles(tiles, key);
  else grid.append(...tiles);
  more.hidden = grid.children.length >= answer.total;
  shown = key;
  mark();
  if (state.unit === null) update({ unit: answer.units[0] });
}

// Replace all tiles; the keyboard stays on its tile where the unit is still there.
function replaceTiles(tiles, key) {
  const focused = grid.contains(document.activeElement) ? document.activeElement.dataset.unit : null;
  grid.replaceChildren(...tiles);
  grid.dataset.shown = key;
  if (focused !== null) (tiles.find((node) => node.dataset.unit === focused) || tiles[0])?.focus({ preventScroll: true });
}

function tile({ layer, values, maps: { data, shape: [, rows, columns] } }, unit, i) {
  const canvas = el("canvas", { "aria-hidden": "true" });
  const palette = network.heat.map(rgb), size = rows * columns;
  paintValues(canvas, data.subarray(i * size, (i + 1) * size), columns, 0, 255, palette);
  const name = size > 1 ? String(unit) : layer === network.layers.at(-1).name ? network.classes[unit] : String(unit);
  const select = (event) => {
    const at = event.detail && size > 1 ? cellAt(event, canvas, rows, columns) : null; // a click by keyboard has no place
    node.focus({ preventScroll: true });
    update({ unit, at });
  };
  const node = el("button", {
    class: "map", type: "button", role: "option", tabindex: "-1", "data-unit": unit, "aria-label": `${unitName(layer, unit)}, maximum ${number(values[i])}`,
    title: unitName(layer, unit), click: select,
  }, canvas, el("span", {}, name, " ", el("small", {}, number(values[i]))));
  return node;
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
