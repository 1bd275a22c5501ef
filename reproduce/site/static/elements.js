// Draws the pages of an atlas, or the page of one image, from the files in data/.
// Values from the data become text or attribute values, never markup.
"use strict";

const INDEX = ATLAS.index;
if (!INDEX) {
  document.getElementById("view").textContent =
    "data/index.js is missing or damaged. Run the command that writes this page again.";
  throw new Error("no data");
}
const LOOK = INDEX.look; // the page of one image; undefined in an atlas
const SVG = "http://www.w3.org/2000/svg";

// The reader's choices, kept from page to page.
const state = { view: "both", covers: "patches", classes: "name" };

// ------------------------------------------------------------------------------------- elements

function set(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "style") Object.assign(node.style, value);
    else if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false)
      node.setAttribute(name, value === true ? "" : value);
  }
  const isContent = (child) => child !== null && child !== undefined && child !== false;
  node.append(...children.flat(Infinity).filter(isContent));
  return node;
}
const el = (tag, attributes, ...children) => set(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  set(document.createElementNS(SVG, tag), attributes, children);
const link = (route, ...children) => el("a", { href: `#/${route}` }, ...children);

// A sentence of explanation, and the source file of what it explains.
const explanation = (sentence, file) =>
  el("p", { class: "explanation" }, `${sentence} `,
    el("small", {}, "Source: ", el("code", {}, file), "."));
const card = (title, sentence, file, ...children) =>
  el("section", { class: "card" }, el("h2", {}, title), explanation(sentence, file), ...children);
const kbd = (text) => el("kbd", {}, text);
const sectionTitle = (text) => el("h2", { class: "section" }, text);

// Buttons, one of them pressed. `choose(value)` shows the chosen option.
function choice(name, options, chosen, choose) {
  const group = el("span", { class: "choice", role: "group", "aria-label": name });
  for (const [value, text] of options) {
    const press = () => {
      for (const button of group.children) button.setAttribute("aria-pressed", button === pressed);
      choose(value);
    };
    const pressed = el("button", {
      type: "button", "aria-pressed": String(value === chosen), "data-value": value, click: press,
    }, text);
    group.append(pressed);
  }
  return group;
}

// A bar chart. Each row is [name or node, value, text, standard error].
function bars(rows) {
  const longest = Math.max(...rows.map(([, value, , error]) => value + (error || 0)));
  const length = (value) => `${(100 * Math.max(0, value)) / longest}%`;
  const errorBar = (value, error) => el("u", {
    style: { left: length(value - error), width: length(Math.min(2 * error, value + error)) },
  });
  return el("div", { class: "rows" }, rows.map(([name, value, text, error]) => [
    el("span", {}, name),
    el("span", { class: "track" }, el("i", { style: { width: length(value) } }),
      error ? errorBar(value, error) : null),
    el("span", {}, text),
  ]));
}

// ------------------------------------------------------------------------------------- numbers

function number(value, digits = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size < 0.0001) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}

function percent(share) {
  const value = 100 * share;
  let digits = 0;
  if (value !== 0 && value !== 100) {
    if (value > 99.9 || value < 0.1) digits = 3;
    else if (value > 99 || value < 10) digits = 1;
  }
  return `${value.toFixed(digits)} %`;
}

const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
const percentOf = (value, side) => `${(100 * value) / side}%`;
