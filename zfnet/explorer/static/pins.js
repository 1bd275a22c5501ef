// Pinned units: each with its picture, and its activation in this image and behind the covered square.

import { latest } from "./api.js";
import { bars, el, notice, number, paintRGB } from "./dom.js";
import { on, pinName, state, unitName, update } from "./state.js";

const MOST = 8;
const list = el("ul", { class: "pins", id: "pins" });
const section = el("section", { class: "card", hidden: true, "aria-label": "Pinned units" }, el("h2", {}, "Pinned units"), list);
const rows = new Map(); // by name

export function drawPins() {
  on(["pins"], draw);
  on(["image"], () => rows.forEach(({ load }) => load()));
  draw();
  return section;
}

export function pin({ layer, unit, at }) {
  const name = pinName({ layer, unit, at });
  if (state.pins.some((other) => pinName(other) === name)) return;
  if (state.pins.length >= MOST) return notice(`at most ${MOST} units can be pinned`);
  update({ pins: [...state.pins, { layer, unit, at }] });
}

function draw() {
  const names = state.pins.map(pinName);
  for (const name of [...rows.keys()]) if (!names.includes(name)) rows.delete(name);
  state.pins.forEach((pinned) => { if (!rows.has(pinName(pinned))) rows.set(pinName(pinned), row(pinned)); });
  list.replaceChildren(...names.map((name) => rows.get(name).node));
  section.hidden = !names.length;
}

function row({ layer, unit, at }) {
  const name = pinName({ layer, unit, at }), canvas = el("canvas", { "aria-hidden": "true" }), value = el("div", { class: "value" });
  const go = () => update({ view: "features", layer, unit, at });
  const remove = () => update({ pins: state.pins.filter((other) => pinName(other) !== name) });
  const load = async () => {
    const answer = await latest("unit", { image: state.image, layer, unit, at: at.join(",") }, `pin ${name}`);
    if (answer) paintRGB(canvas, answer.projection);
  };
  load();
  const node = el("li", { "data-pin": name },
    el("button", { class: "thumb", type: "button", title: `Show ${name}`, "aria-label": `Show ${name}`, click: go }, canvas),
    el("div", {}, el("strong", {}, unitName(layer, unit)), " ", el("small", {}, `row ${at[0]}, column ${at[1]}`), value),
    el("button", { class: "button", type: "button", "aria-label": `Remove ${name}`, click: remove }, "×"));
  return { node, value, load };
}

// Show an answer of `cover` in the rows of the pins that it was asked for.
export function showPins(names, answer) {
  names.forEach((name, i) => {
    const row = rows.get(name), base = answer.baseline.pins[i], now = answer.box ? answer.pins[i] : base;
    if (!row) return;
    row.value.replaceChildren(bars([[number(now, 3), base > 0 ? Math.min(1, now / base) : 0, answer.box ? `was ${number(base, 3)}` : ""]]));
    row.value.dataset.now = now;
  });
}
