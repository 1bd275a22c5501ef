// The image: samples, a file that is chosen, dropped or pasted, and what the network takes it for.

import { latest, send } from "./api.js";
import { bars, byId, el, notice, overlay, paintRGB, percent } from "./dom.js";
import { network, on, refresh, state, update } from "./state.js";
import { isRunning, startWebcam, stopWebcam } from "./webcam.js";

const MAX_UPLOAD = 20e6; // bytes; the server checks it too
const picture = el("canvas", { id: "picture", role: "img" });
const field = el("div", { class: "box field", hidden: true });
const occluder = el("div", { class: "box occluder", hidden: true });
export const stage = el("div", { class: "stage", id: "stage" }, picture, occluder, field);
const classes = el("div", { id: "classes" });
const caption = el("p", { class: "soft caption", id: "caption" });
const samples = el("div", { class: "samples", role: "group", "aria-label": "Sample photographs" });
const rate = el("span", { class: "soft", id: "rate", role: "status" });
const webcam = el("button", { class: "button", type: "button", id: "webcam", "aria-pressed": "false", click: toggleWebcam }, "Webcam");

export const showField = (box) => (box ? overlay(field, box, network.size) : (field.hidden = true));
export const showOccluder = (box) => (box ? overlay(occluder, box, network.size) : (occluder.hidden = true));

export function drawImage() {
  const file = el("input", { type: "file", id: "file", accept: "image/*", class: "visually-hidden", change: () => { if (file.files.length) upload(file.files[0]); file.value = ""; } });
  byId("image").append(
    stage, caption,
    el("div", { class: "bar" }, el("label", { class: "button", for: "file" }, "Choose a file", file), webcam, rate),
    samples,
  );
  byId("answers").append(el("section", { class: "card" }, el("h2", {}, "Top classes"), classes));
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    const [dropped] = event.dataTransfer.files;
    if (dropped) upload(dropped);
    else notice("drop a file: addresses of the web are not opened");
  });
  document.addEventListener("paste", (event) => {
    const [pasted] = event.clipboardData.files;
    if (pasted) upload(pasted);
  });
  on(["image"], loadImage);
  drawSamples();
}

async function drawSamples() {
  const answer = await latest("samples", {});
  if (!answer) return;
  const { data, shape: [count, side] } = answer.thumbnails, size = 3 * side * side;
  samples.append(...Array.from({ length: count }, (_, i) => {
    const name = answer.names[i];
    const canvas = paintRGB(el("canvas", { "aria-hidden": "true" }), { data: data.subarray(i * size, (i + 1) * size), shape: [side, side] });
    return el("button", { type: "button", title: name, "aria-label": name, "data-sample": name, click: () => choose(name) }, canvas);
  }));
  markSample();
}

function markSample() {
  for (const button of samples.children) button.setAttribute("aria-pressed", String(button.dataset.sample === state.image));
}

function choose(image) {
  stopWebcam();
  update({ image, at: null });
}

async function upload(file) {
  if (file.size > MAX_UPLOAD) return notice(`${file.name} has over 20 MB: choose a smaller file`);
  try {
    const answer = await send("upload", { name: file.name }, { method: "POST", body: file });
    if (answer) choose(answer.image);
  } catch (error) {
    notice(error.message);
  }
}

async function loadImage() {
  markSample();
  if (isRunning() && state.image.startsWith("webcam-")) return; // its frames come with their classes
  const wanted = state.image, answer = await latest("image", { image: wanted });
  if (answer) showImage(answer);
  else if (wanted === state.image && network.samples.length && !network.samples.includes(wanted)) update({ image: network.samples[0], at: null });
}

// Show an answer of `image` or `frame`.
export function showImage(answer) {
  paintRGB(picture, answer.pixels);
  picture.setAttribute("aria-label", `The image: ${answer.label}`);
  caption.textContent = `${answer.label}, at ${network.size} × ${network.size} pixels`;
  classes.replaceChildren(bars(answer.best.map((c, i) => [network.classes[c], answer.probability[i], percent(answer.probability[i])])));
  classes.dataset.image = answer.image;
  classes.dataset.best = answer.best[0];
}

async function toggleWebcam() {
  if (isRunning()) return stopWebcam();
  await startWebcam({
    started: () => webcam.setAttribute("aria-pressed", "true"),
    stopped: () => { webcam.setAttribute("aria-pressed", "false"); rate.textContent = ""; },
    frame: (answer, perSecond) => {
      showImage(answer);
      rate.textContent = perSecond ? `${perSecond.toFixed(1)} frames/s` : "";
      rate.dataset.rate = perSecond;
      if (state.image !== answer.image) update({ image: answer.image, at: null });
      else refresh("frame");
    },
  });
}
