// Figure 3 as navigation: a box for each layer, its edge by the root of the map's side, its depth by the number of maps.

import { byId, el, svg } from "./dom.js";
import { network, on, state, update } from "./state.js";

function boxes(maps, side) {
  const edge = side ? 44 * Math.sqrt(side / network.size) : 30;
  const depth = side ? 1.7 * Math.log2(maps) : 0, width = side ? edge * 0.62 : 6;
  return (side ? [1, 0.66, 0.33, 0] : [0]).map((shift) => svg("rect", {
    x: 32 - (width + depth) / 2 + shift * depth, y: 32 - edge / 2 - shift * depth * 0.55 + depth * 0.27, width, height: edge, rx: 0.8,
  }));
}

export function drawNetwork() {
  const draw = (name, maps, side, lines, choose) => {
    const inside = [svg("svg", { viewBox: "0 0 64 64", "aria-hidden": "true" }, boxes(maps, side)), el("b", {}, name), lines.map((line) => el("small", {}, line))];
    const attributes = { class: side ? "" : "dense", "data-layer": choose ? name : null };
    byId("map").append(choose
      ? el("button", { ...attributes, type: "button", title: `${name}: ${lines.join(", ")}`, click: choose }, inside)
      : el("span", attributes, inside));
  };
  draw("input", 3, network.size, [`${network.size} × ${network.size}`, "pixels"], null);
  network.layers.forEach(({ name, maps, size: [rows, columns] }, i) => {
    const spatial = rows * columns > 1, last = i === network.layers.length - 1;
    const lines = spatial ? [`${rows} × ${columns}`, `${maps} maps`] : [last ? "classes" : "units", String(maps)];
    draw(name, maps, spatial ? rows : 0, lines, () => update({ view: "features", layer: name, unit: null, at: null }));
  });
  on(["layer"], mark);
  mark();
}

function mark() {
  for (const box of byId("map").children) {
    if (box.dataset.layer === state.layer) box.setAttribute("aria-current", "true");
    else box.removeAttribute("aria-current");
  }
}
