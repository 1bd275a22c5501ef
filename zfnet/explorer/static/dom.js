// Elements, numbers and pictures. Text from the server becomes text nodes, never markup.

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "style") Object.assign(node.style, value);
    else if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
export const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
export const byId = (id) => document.getElementById(id);

export function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size < 0.0001) return value.toExponential(1);
  return String(Number(value.toPrecision(digits))).replace("-", "−");
}

export function percent(share) {
  if (share === null || share === undefined) return "–";
  const value = 100 * share;
  const digits = value === 0 || value === 100 ? 0 : value > 99.9 || value < 0.1 ? 3 : 1;
  return `${value.toFixed(digits)} %`;
}

// Buttons of which one is pressed: [value, text] pairs.
export function choice(label, options, current, choose) {
  const group = el("div", { class: "choice", role: "group", "aria-label": label });
  const press = (value) => {
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.value === String(value)));
  };
  group.append(...options.map(([value, text]) => el("button", { type: "button", "data-value": value, click: () => { press(value); choose(value); } }, text)));
  press(current);
  group.press = press;
  return group;
}

// Names with bars from 0 to 1: [name, share, text].
export function bars(rows) {
  return el("div", { class: "rows" }, rows.map(([name, share, text]) => [
    el("span", {}, name),
    el("span", { class: "track" }, el("i", { style: { width: `${100 * Math.max(0, share || 0)}%` } })),
    el("span", {}, text),
  ]));
}

// Paint an RGB array (height, width, 3) of bytes.
export function paintRGB(canvas, { data, shape }) {
  const [height, width] = shape;
  Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height);
  for (let i = 0, j = 0; i < data.length; i += 3, j += 4) {
    picture.data[j] = data[i];
    picture.data[j + 1] = data[i + 1];
    picture.data[j + 2] = data[i + 2];
    picture.data[j + 3] = 255;
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

// Paint values, from `low` to `high`, with a palette of [r, g, b] colors.
export function paintValues(canvas, values, width, low, high, palette) {
  const height = values.length / width;
  Object.assign(canvas, { width, height });
  const picture = new ImageData(width, height), last = palette.length - 1, scale = high > low ? last / (high - low) : 0;
  for (let i = 0; i < values.length; i++) {
    const color = palette[Math.max(0, Math.min(last, Math.round((values[i] - low) * scale)))];
    picture.data.set([color[0], color[1], color[2], 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(picture, 0, 0);
  return canvas;
}

// Paint one color per cell.
export function paintColors(canvas, colors, width) {
  Object.assign(canvas, { width, height: colors.length / width });
  const context = canvas.getContext("2d");
  colors.forEach((color, i) => {
    context.fillStyle = color;
    context.fillRect(i % width, Math.floor(i / width), 1, 1);
  });
  return canvas;
}

export const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

// Put an element over a box (top, left, bottom, right) of a picture of a given side.
export function overlay(node, [top, left, bottom, right], height, width = height) {
  Object.assign(node.style, {
    top: `${(100 * top) / height}%`, left: `${(100 * left) / width}%`,
    height: `${(100 * (bottom - top)) / height}%`, width: `${(100 * (right - left)) / width}%`,
  });
  node.hidden = false;
}

// The cell of a grid under a pointer.
export function cellAt(event, node, rows, columns) {
  const box = node.getBoundingClientRect();
  const clamp = (share, n) => Math.max(0, Math.min(n - 1, Math.floor(share * n)));
  return [clamp((event.clientY - box.top) / box.height, rows), clamp((event.clientX - box.left) / box.width, columns)];
}

export const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
export const clamp = (value, low, high) => Math.max(low, Math.min(high, value));

// Follow the pointer from where it is pressed until it is released.
export function onDrag(node, move) {
  node.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    node.setPointerCapture(event.pointerId);
    node.dataset.dragging = "1";
    move(event);
  });
  node.addEventListener("pointermove", (event) => { if (node.dataset.dragging) move(event); });
  for (const name of ["pointerup", "pointercancel"]) node.addEventListener(name, () => { delete node.dataset.dragging; });
}

let noticeTimer = 0;
export function notice(text) {
  const node = byId("notice");
  node.textContent = text;
  node.hidden = !text;
  clearTimeout(noticeTimer);
  if (text) noticeTimer = setTimeout(() => { node.hidden = true; }, 8000);
}
