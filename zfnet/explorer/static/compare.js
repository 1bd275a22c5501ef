// Two attribution methods side by side, for any class.

import { latest } from "./api.js";
import { el, number, paintRGB } from "./dom.js";
import { classInput } from "./target.js";
import { network, on, state, update } from "./state.js";

export function drawCompare() {
  return el("section", { class: "panel", id: "compare" },
    el("h2", {}, "Compare two methods"),
    el("p", { class: "why" }, "Each map says which pixels matter for the class; it is scaled by its own 99.5th percentile. Signed maps go from blue over white to red, the others from black to yellow."),
    el("div", { class: "bar" }, classInput("compare-target")),
    el("div", { class: "pair" }, side("left"), side("right")));
}

function side(name) {
  const canvas = el("canvas", { id: `${name}-map`, role: "img" }), text = el("p", { class: "soft", role: "status" });
  const select = el("select", { id: `${name}-method`, "aria-label": `${name} method`, change: () => update({ [name]: select.value }) },
    network.methods.map((method) => el("option", { value: method }, method.replaceAll("_", " "))));
  const node = el("figure", { "data-side": name }, el("div", { class: "bar" }, select), canvas, text);
  const load = async (names) => {
    if (state.view !== "compare") return;
    const method = state[name], image = state.image;
    select.value = method;
    if (!names.includes("frame")) {
      node.classList.add("busy");
      text.textContent = "computing";
    }
    const answer = await latest("explain", { image, method, target: state.target }, `explain ${name}`);
    if (method !== state[name] || image !== state.image) return;
    node.classList.remove("busy");
    if (!answer) return void (text.textContent = "");
    paintRGB(canvas, answer.picture);
    canvas.setAttribute("aria-label", `${method} for ${network.classes[answer.target]}`);
    text.textContent = `${network.classes[answer.target]}: ${answer.state === "ok" ? `values from ${number(answer.low)} to ${number(answer.high)}` : `the map is ${answer.state}`}`;
    Object.assign(text.dataset, { low: answer.low, high: answer.high, method, target: answer.target });
  };
  on(["image", "frame", "target", "view", name], load);
  if (state.view === "compare") load([]);
  return node;
}
