// Cover a square of the image: the target class, the most probable class and the pinned units respond.

import { latest } from "./api.js";
import { ARROWS, clamp, el, number, onDrag, percent } from "./dom.js";
import { showField, showOccluder, stage } from "./image.js";
import { showPins } from "./pins.js";
import { drawSweep } from "./sweep.js";
import { classInput } from "./target.js";
import { network, on, pinName, state, unitName, update } from "./state.js";

const STEP = 4; // pixels, by the arrow keys
const readout = el("dl", { id: "readout", role: "status" });
const size = el("input", { type: "range", id: "size", min: "8", step: "2", input: () => resize(Number(size.value)) });
const sizeText = el("span", { class: "soft" });

export function drawCover() {
  size.max = network.size;
  stage.addEventListener("keydown", steer);
  onDrag(stage, (event) => { if (state.view === "cover") place(event); });
  on(["view"], enable);
  on(["image", "frame", "box", "target", "pins", "view"], load);
  on(["box", "size", "view"], mark);
  enable();
  mark();
  load();
  return el("section", { class: "panel", id: "cover" },
    el("h2", {}, "Cover a part of the image"),
    el("p", { class: "why" }, "Drag a gray square over the image, or use the arrow keys. ", el("kbd", {}, "+"), " ", el("kbd", {}, "−"), " change its size, ", el("kbd", {}, "Esc"), " removes it."),
    el("div", { class: "bar" }, el("label", {}, "size ", size, sizeText), classInput("cover-target")),
    el("div", { class: "card" }, readout), drawSweep());
}

function enable() {
  const active = state.view === "cover";
  stage.classList.toggle("covering", active);
  if (active) Object.entries({ role: "application", tabindex: "0", "aria-label": "The image: arrow keys move the square" }).forEach(([name, value]) => stage.setAttribute(name, value));
  else ["role", "tabindex", "aria-label"].forEach((name) => stage.removeAttribute(name));
}

function mark() {
  const active = state.view === "cover";
  showOccluder(active ? state.box : null);
  if (state.view !== "features") showField(null);
  size.value = state.size;
  sizeText.textContent = `${state.size} pixels`;
}

async function load() {
  const pins = [...state.pins].map(pinName), box = state.view === "cover" ? state.box : null;
  if (state.view !== "cover" && !pins.length) return;
  const answer = await latest("cover", { image: state.image, box: box?.join(","), target: state.target, pins: pins.join(";") });
  if (!answer) return;
  showPins(pins, answer);
  show(answer);
}

function show({ target, strongest, baseline, box, ...covered }) {
  const now = box ? covered : baseline;
  const change = (name) => (box && baseline[name] ? ` (${number(baseline[name], 4)} uncovered)` : "");
  const line = (name, text, id, value) => [el("dt", {}, name), el("dd", { "data-id": id, "data-value": value }, text)];
  readout.replaceChildren(
    ...line(`probability of ${network.classes[target]}`, `${percent(now.probability)}${box ? ` (${percent(baseline.probability)} uncovered)` : ""}`, "probability", now.probability),
    ...line(`logit of ${network.classes[target]}`, `${number(now.logit, 4)}${change("logit")}`, "logit", now.logit),
    ...line("most probable", `${network.classes[now.label]}, ${percent(now.label_probability)}`, "label", now.label),
    ...(strongest ? line(`total of ${unitName(...strongest)}`, `${number(now.total, 4)}${change("total")}`, "total", now.total) : []));
  readout.dataset.box = box ? box.join(",") : "";
  readout.dataset.answers = Number(readout.dataset.answers || 0) + 1;
}

// Center the square at a point of the image, in pixels.
function center(row, column, side = state.size) {
  const [top, left] = [row, column].map((middle) => clamp(Math.round(middle - side / 2), 0, network.size - side));
  update({ size: side, box: [top, left, top + side, left + side] });
}

function place(event) {
  const box = stage.getBoundingClientRect();
  center(((event.clientY - box.top) / box.height) * network.size, ((event.clientX - box.left) / box.width) * network.size);
}

function middle() {
  const [top, left, bottom, right] = state.box || [0, 0, network.size, network.size];
  return [(top + bottom) / 2, (left + right) / 2];
}

function resize(side) {
  if (state.box) center(...middle(), side);
  else update({ size: side });
}

function steer(event) {
  if (state.view !== "cover") return;
  const step = ARROWS[event.key], growth = { "+": 8, "=": 8, "-": -8 }[event.key];
  if (event.key === "Escape") update({ box: null });
  else if (growth) resize(clamp(state.size + growth, 8, network.size));
  else if (step) center(...(state.box ? middle().map((value, i) => value + STEP * step[i]) : middle()));
  else return;
  event.preventDefault();
}
