// The nine images of an atlas that activate the selected feature most, and their projections.

import { latest } from "./api.js";
import { el, number, paintRGB } from "./dom.js";
import { layerOf, network, on, state } from "./state.js";

const patches = el("div", { class: "nine" }), projections = el("div", { class: "nine" });
const pair = el("div", { class: "pair" }, el("figure", {}, el("figcaption", {}, "patches"), patches), el("figure", {}, el("figcaption", {}, "projections"), projections));
const status = el("p", { class: "why" });

export function drawNeighbors() {
  on(["layer", "unit", "view"], load);
  return el("section", { id: "neighbors" }, el("h2", {}, "Nine strongest images"), status, pair);
}

async function load() {
  if (state.unit === null || state.view !== "features") return;
  const { layer, unit } = state;
  if (!layerOf(layer).field) return show({ values: [], why: "Units of dense layers are not in the atlas." });
  const answer = await latest("neighbors", { layer, unit });
  if (answer && layer === state.layer && unit === state.unit) show(answer);
}

function show({ values, names = [], why, ...arrays }) {
  pair.hidden = !values.length;
  status.textContent = values.length ? `The images with the strongest activations, among ${network.atlas}.` : why;
  for (const [node, kind] of [[patches, "patches"], [projections, "projections"]]) {
    node.replaceChildren(...values.map((value, i) => {
      const { data, shape: [, height, width] } = arrays[kind], size = 3 * height * width;
      const canvas = el("canvas", { role: "img", "aria-label": `neighbor ${i + 1}`, title: `${names[i]}: activation ${number(value, 4)}` });
      return paintRGB(canvas, { data: data.subarray(i * size, (i + 1) * size), shape: [height, width] });
    }));
  }
}
