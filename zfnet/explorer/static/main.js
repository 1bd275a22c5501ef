// Start: ask the server for the network, draw the page, and follow the address.

import { send } from "./api.js";
import { drawCompare } from "./compare.js";
import { drawCover } from "./cover.js";
import { byId, choice } from "./dom.js";
import { drawFeatures } from "./features.js";
import { drawImage } from "./image.js";
import { drawNetwork } from "./network.js";
import { drawPins } from "./pins.js";
import { drawShare } from "./share.js";
import { layerOf, network, on, readHash, refresh, state, update } from "./state.js";
import { drawUnit } from "./unit.js";

const VIEWS = [["features", "Features"], ["cover", "Cover"], ["compare", "Compare"]];

// Correct what an address may hold: names of another network, or an image that is gone.
function corrected(wanted) {
  const convs = network.layers.filter((layer) => layer.field), layer = layerOf(wanted.layer) || convs.at(-1);
  const fits = layer.name === wanted.layer && wanted.unit < layer.maps;
  const inside = wanted.at && wanted.at.every((value, i) => value < layer.size[i]);
  const method = (name, other) => (network.methods.includes(name) ? name : other);
  return {
    ...wanted, layer: layer.name, unit: fits ? wanted.unit : null, at: fits && inside ? wanted.at : null,
    image: wanted.image || network.samples[0] || "", view: VIEWS.some(([view]) => view === wanted.view) ? wanted.view : "features",
    method: ["deconvnet", "guided", "gradient", "none"].includes(wanted.method) ? wanted.method : "deconvnet",
    collision: wanted.collision === "overwrite" ? "overwrite" : "sum", switches: wanted.switches ? 1 : 0, normalization: wanted.normalization ? 1 : 0,
    left: method(wanted.left, "grad_cam"), right: method(wanted.right, "saliency"),
    target: wanted.target < network.classes.length ? wanted.target : null,
    size: Math.max(8, Math.min(network.size, wanted.size)),
    pins: wanted.pins.filter((pin) => layerOf(pin.layer) && pin.unit < layerOf(pin.layer).maps && pin.at.every((value, i) => value < layerOf(pin.layer).size[i])).slice(0, 8),
  };
}

function draw() {
  byId("about").textContent = `${network.network}, ${network.classes.length} classes`;
  drawNetwork();
  drawImage();
  const views = choice("View", VIEWS, state.view, (view) => update({ view }));
  views.id = "views";
  byId("top").append(views, drawShare());
  byId("work").append(drawFeatures(), drawCover(), drawCompare());
  byId("side").append(drawUnit());
  byId("answers").append(drawPins());
  const show = () => {
    views.press(state.view);
    for (const [view] of VIEWS) byId(view).hidden = view !== state.view;
    byId("side").hidden = state.view !== "features";
    byId("view").dataset.view = state.view;
  };
  on(["view"], show);
  show();
}

async function start() {
  Object.assign(network, await send("network", {}));
  Object.assign(state, corrected(readHash()));
  draw();
  for (const name of ["image", "layer"]) refresh(name);
  window.addEventListener("hashchange", () => update(corrected(readHash())));
  byId("view").dataset.ready = "1";
}

start().catch((error) => {
  byId("notice").hidden = false;
  byId("notice").textContent = error.message;
});
