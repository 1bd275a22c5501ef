// Figure 3 as navigation: a box for each layer, its edge by the root of the map's side, its depth by the number of maps.

import { byId, el, svg } from "./dom.js";
import { network, on, state, update } from "./state.js";

const MOST = 40; // layers that are drawn

function boxes(maps, side) {
  const edge = side ? 44 * Math.sqrt(side / network.size) : 30;
  const depth = side ? 1.7 * Math.log2(maps) : 0, width = side ? edge * 0.62 : 6;
  return (side ? [1, 0.66, 0.33, 0] : [0]).map((shift) => svg("rect", {
    x: 32 - (width + depth) / 2 + shift * depth, y: 32 - edge / 2 - shift * depth * 0.55 + depth * 0.27, width, height: edge, rx: 0.8,
  }));
}

// The layers that are drawn: all of a chain; of a network with branches the outermost modules.
function mainLayers() {
  for (const depth of [9, 1, 0]) {
    const layers = network.layers.filter(({ name }) => name.split(".").length - 1 <= depth);
    if (layers.length <= MOST || depth === 0) return layers;
  }
}

// A choice of all layers, where not all are drawn.
export function layerChoice() {
  if (mainLayers().length === network.layers.length) return null;
  const select = el("select", { id: "layer", "aria-label": "Layer", change: () => choose(select.value) }, network.layers.map(({ name }) => el("option", { value: name }, name)));
  const show = () => { select.value = state.layer; };
  on(["layer"], show);
  show();
  return el("label", {}, "layer ", select);
}

const choose = (layer) => update({ view: "features", layer, unit: null, at: null });

export function drawNetwork() {
  const draw = (name, maps, side, lines, choose) => {
    const inside = [svg("svg", { viewBox: "0 0 64 64", "aria-hidden": "true" }, boxes(maps, side)), el("b", {}, name), lines.map((line) => el("small", {}, line))];
    const attributes = { class: side ? "" : "dense", "data-layer": choose ? name : null };
    byId("map").append(choose
      ? el("button", { ...attributes, type: "button", title: `${name}: ${lines.join(", ")}`, click: choose }, inside)
      : el("span", attributes, inside));
  };
  draw("input", 3, network.size, [`${network.size} × ${network.size}`, "pixels"], null);
  const drawn = mainLayers();
  drawn.forEach(({ name, maps, size: [rows, columns] }) => {
    const spatial = rows * columns > 1, last = name === network.layers.at(-1).name;
    const lines = spatial ? [`${rows} × ${columns}`, `${maps} maps`] : [last ? "classes" : "units", String(maps)];
    draw(name, maps, spatial ? rows : 0, lines, () => choose(name));
  });
  on(["layer"], mark);
  mark();
}

function mark() {
  for (const box of byId("map").children) {
    if (box.dataset.layer === state.layer) {
      box.setAttribute("aria-current", "true");
      byId("map").scrollLeft = box.offsetLeft - (byId("map").clientWidth - box.clientWidth) / 2;
    } else box.removeAttribute("aria-current");
  }
}
