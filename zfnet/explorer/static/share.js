// Save what is shown: the picture with its caption, and the Python that reproduces it.

import { address, send } from "./api.js";
import { byId, el, notice } from "./dom.js";
import { hash, rules, state } from "./state.js";

export function drawShare() {
  return el("button", { class: "button", type: "button", id: "save", click: saveView }, "Save");
}

function parameters() {
  const { image, view, layer, unit, target } = state;
  if (view === "features") return { image, view: "unit", layer, unit, at: state.at?.join(","), ...rules() };
  if (view === "cover") return { image, view, target, box: state.box?.join(",") };
  return { image, view, target, left: state.left, right: state.right };
}

function saveView() {
  if (state.view === "cover" && !state.box) notice("cover a part of the image first");
  else save(parameters());
}

// Show the picture, caption and Python of a view; the parameters are those of the API's `share`.
export async function save(wanted) {
  let shared;
  try {
    shared = await send("share", wanted);
  } catch (error) {
    return notice(error.message);
  }
  if (!shared) return;
  const dialog = byId("dialog"), picture = address("picture", wanted);
  const code = URL.createObjectURL(new Blob([shared.code], { type: "text/x-python" }));
  const copy = (text, what) => () => navigator.clipboard.writeText(text).then(() => { status.textContent = `${what} copied`; }, () => { status.textContent = "the browser refuses to copy"; });
  const status = el("span", { class: "soft", role: "status" });
  dialog.replaceChildren(
    el("h2", {}, "Save"), el("img", { src: picture, alt: shared.caption }), el("p", { id: "share-caption" }, shared.caption),
    el("pre", {}, el("code", { id: "code" }, shared.code)),
    el("div", { class: "bar" },
      el("a", { class: "button", id: "save-picture", href: picture, download: `${shared.name}.png` }, "Picture (PNG)"),
      el("a", { class: "button", id: "save-code", href: code, download: `${shared.name}.py` }, "Python"),
      el("button", { class: "button", type: "button", click: copy(shared.code, "code") }, "Copy the Python"),
      el("button", { class: "button", type: "button", click: copy(new URL(`#${hash()}`, location.href).href, "address") }, "Copy the address"),
      el("button", { class: "button", type: "button", id: "close", click: () => dialog.close() }, "Close"), status));
  dialog.onclose = () => URL.revokeObjectURL(code);
  dialog.showModal();
}
