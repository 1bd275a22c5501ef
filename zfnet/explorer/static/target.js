// A field that takes any class of the network, by name. Empty means the predicted class.

import { el } from "./dom.js";
import { network, on, state, update } from "./state.js";

export function classInput(id) {
  const input = el("input", { id, list: `${id}-list`, placeholder: "predicted class", autocomplete: "off", "aria-label": "Class", change: () => choose(input.value) });
  const choose = (text) => {
    const wanted = text.trim().toLowerCase(), names = network.classes;
    let target = names.findIndex((name) => name.toLowerCase() === wanted);
    if (target < 0 && /^\d+$/.test(wanted) && Number(wanted) < names.length) target = Number(wanted);
    if (target < 0 && wanted) target = names.findIndex((name) => name.toLowerCase().includes(wanted));
    update({ target: target < 0 ? null : target });
    show();
  };
  const show = () => { input.value = state.target === null ? "" : network.classes[state.target] ?? ""; };
  on(["target"], show);
  show();
  return el("label", {}, "class ", input, el("datalist", { id: `${id}-list` }, [...new Set(network.classes)].map((name) => el("option", { value: name }))));
}
