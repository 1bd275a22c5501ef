// ------------------------------------------------------------------------------------- grids

// Make an element a grid of cells that the pointer and the arrow keys choose from.
// `choose(row, column)` is called for a cell, `leave()` when none is chosen any more.
function cells(node, rows, columns, label, choose, leave, cellAt = null) {
  let chosen = null;
  const clip = (v, n) => Math.max(0, Math.min(n - 1, v));
  const go = (r, c) => choose(...(chosen = [clip(r, rows), clip(c, columns)]));
  const reset = () => { chosen = null; leave(); };
  const at = cellAt || ((x, y) => [Math.floor(y * rows), Math.floor(x * columns)]);
  const point = (event) => {
    const frame = node.getBoundingClientRect();
    const x = (event.clientX - frame.left) / frame.width;
    const y = (event.clientY - frame.top) / frame.height;
    go(...at(x, y));
  };
  const keys = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  return set(node, {
    tabindex: 0, role: "application", "aria-label": label, pointerdown: point,
    pointermove: (event) => { if (leave || event.buttons) point(event); },
    pointerleave: (event) => { // on a touch screen the occluder stays when the finger is lifted
      if (leave && event.pointerType === "mouse" && document.activeElement !== node) reset();
    },
    keydown: (event) => {
      if (event.key === "Escape" && leave) reset();
      if (!keys[event.key]) return;
      event.preventDefault();
      const [r, c] = chosen || [(rows - 1) >> 1, (columns - 1) >> 1];
      go(r + keys[event.key][0], c + keys[event.key][1]);
    },
  }, []);
}

// A map [rows][columns] as a canvas with one pixel per cell.
function paint(values, color) {
  const size = { width: values[0].length, height: values.length };
  const canvas = el("canvas", { ...size, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  values.forEach((row, r) => row.forEach((value, c) => {
    context.fillStyle = color(value);
    context.fillRect(c, r, 1, 1);
  }));
  return canvas;
}

function heat(values, least = null) {
  const flat = values.flat(), low = least ?? Math.min(...flat), high = Math.max(...flat);
  const last = INDEX.heat.length - 1;
  const level = (v) => (high > low ? Math.round(((v - low) / (high - low)) * last) : 0);
  return paint(values, (v) => INDEX.heat[level(v)]);
}

// A canvas with a movable mark: [element, move(row, column)]. move(null) hides the mark.
function framed(canvas, values) {
  const mark = el("i", { hidden: true });
  const [rows, columns] = [values.length, values[0].length];
  const move = (r, c) => {
    mark.hidden = r === null;
    if (r === null) return;
    Object.assign(mark.style, {
      top: percentOf(r, rows), left: percentOf(c, columns),
      height: percentOf(1, rows), width: percentOf(1, columns),
    });
  };
  return [el("div", { class: "cell" }, canvas, mark), move];
}

// ------------------------------------------------------------------------------------- occlusion

const OTHER_COLOR = "#8a8a8a";

// The image, an occluder to move over it, and the recorded maps.
function occlusionLab(data, folder, key) {
  const rows = data.rows.length, columns = data.columns.length;
  const { colorOf, legend } = labelColors(data.label.flat());
  const occluder = el("div", { class: "box occluder", hidden: true });
  const image = el("img", { src: `${folder}/${key}.webp`, alt: "The image" });
  const stage = el("div", { class: "stage" }, image, occluder);
  const readout = el("dl", { class: "readout", role: "status" });
  const marks = [];
  const cover = (r, c) => {
    occluder.hidden = r === null;
    if (r !== null) Object.assign(occluder.style, occluderBox(data, r, c));
    for (const move of marks) move(r, c);
    readout.replaceChildren(...measurements(data, r, c, colorOf));
  };
  const uncover = () => cover(null, null);
  const nearest = (edges, v) => { // the occluder with the nearest center
    const distance = edges.map(([from, to]) => Math.abs((from + to) / 2 - v * data.side));
    return distance.indexOf(Math.min(...distance));
  };
  const help = "The image: move the occluder with the pointer or the arrow keys; Escape removes it";
  cells(stage, rows, columns, help, cover, uncover,
    (x, y) => [nearest(data.rows, y), nearest(data.columns, x)]);
  const small = (title, canvas, values) => {
    const [frame, move] = framed(canvas, values);
    marks.push(move);
    cells(frame, rows, columns, `${title}: move the occluder`, cover, uncover);
    frame.tabIndex = -1; // the keyboard uses the image itself
    return el("figure", {}, el("figcaption", {}, title), frame);
  };
  const maps = el("div", { class: "maps" },
    small(`sum of map ${data.channel}`, heat(data.activation), data.activation),
    small("logit", heat(data.logit), data.logit),
    small("probability", heat(data.probability, 0), data.probability),
    small("predicted class", paint(data.label, colorOf), data.label));
  uncover();
  return [
    explanation(`Point at the image, or use the arrow keys, to cover it with a gray square of`
      + ` ${data.size} pixels. The numbers were recorded every ${data.stride} pixels. The maps show`
      + " them for all positions; dark is low.", "reproduce/site/atlas/demos.py"),
    el("div", { class: "lab" }, stage, el("div", {}, readout, maps, legend)),
    sectionTitle(`The strongest ${data.layer} maps`),
    explanation("Choose a position of a map with the pointer or the arrow keys. The deconvnet"
      + " projects the activation there to pixels, within its receptive field.",
      "reproduce/site/atlas/demos.py"),
    projectionLab(data, folder, key),
  ];
}

// A color for each frequent label, and a legend.
function labelColors(labels) {
  const counts = new Map();
  for (const c of labels) counts.set(c, (counts.get(c) || 0) + 1);
  const frequent = [...counts].sort((a, b) => b[1] - a[1]).slice(0, INDEX.colors.length);
  const colorOf = (c) =>
    INDEX.colors[frequent.findIndex(([label]) => label === c)] || OTHER_COLOR;
  const others = counts.size - frequent.length;
  const swatch = (color) => el("i", { class: "key", style: { background: color } });
  const legend = el("ul", { class: "legend" },
    frequent.map(([c]) => el("li", {}, swatch(colorOf(c)), className(c))),
    others > 0 ? el("li", {}, swatch(OTHER_COLOR), count(others, "other")) : null);
  return { colorOf, legend };
}

function occluderBox(data, r, c) {
  const [top, bottom] = data.rows[r], [left, right] = data.columns[c];
  return {
    top: percentOf(top, data.side), left: percentOf(left, data.side),
    height: percentOf(bottom - top, data.side), width: percentOf(right - left, data.side),
  };
}

// What the network computes with the occluder at a position; without it for null.
function measurements(data, r, c, colorOf) {
  const base = data.baseline, covered = r !== null;
  const value = (name) => (covered ? data[name][r][c] : base[name]);
  const change = () => {
    if (!covered || !base.activation) return "";
    const relative = value("activation") / base.activation - 1;
    return ` (${relative >= 0 ? "+" : "−"}${Math.abs(100 * relative).toFixed(0)} %)`;
  };
  const line = (name, text, id) => [el("dt", {}, name), el("dd", { "data-id": id }, text)];
  const swatch = el("i", { class: "key", style: { background: colorOf(value("label")) } });
  const position =
    `row ${r + 1} of ${data.rows.length}, column ${c + 1} of ${data.columns.length}`;
  return [
    ...line("occluder", covered ? position : "none", "occluder"),
    ...line(`${data.layer}, map ${data.channel}`, `${number(value("activation"), 4)}${change()}`,
      "activation"),
    ...line(`logit of ${className(data.target)}`, number(value("logit"), 4), "logit"),
    ...line("its probability", percent(value("probability")), "probability"),
    ...line("predicted class", [swatch, className(value("label"))], "label"),
  ];
}

// ------------------------------------------------------------------------------------- projection

// The strongest maps of the last layer; choosing a position shows its projection.
function projectionLab(data, folder, key) {
  const { size, stride, offset } = data.field;
  const frame = () => el("div", { class: "box field", hidden: true });
  const patch = el("div", { class: "box tile" });
  const frames = [frame(), frame()];
  const selection = el("p", { class: "selection", role: "status" });
  const marks = [];
  const show = (n, r, c) => {
    const { channel, values } = data.maps[n], value = values[r][c];
    marks.forEach((move, other) => move(...(other === n ? [r, c] : [null, null])));
    const box = {
      top: percentOf(offset + r * stride, data.side),
      left: percentOf(offset + c * stride, data.side),
      width: percentOf(size, data.side), height: percentOf(size, data.side),
    };
    for (const node of [...frames, patch]) {
      node.hidden = false;
      Object.assign(node.style, box);
    }
    place(patch, `${folder}/${key}-map${n}.webp`, c, r, values[0].length, values.length);
    patch.style.visibility = value > 0 ? "visible" : "hidden";
    const map = LOOK ? `map ${channel}` : link(`${data.layer}/${channel}`, `map ${channel}`);
    const text = value > 0 ? `activation ${number(value, 4)}` : "silent, no projection";
    selection.replaceChildren(map, `, row ${r}, column ${c}: ${text}`);
  };
  const maps = el("div", { class: "maps" }, data.maps.map(({ channel, values }, n) => {
    const [node, move] = framed(heat(values, 0), values);
    marks.push(move);
    const label = `Map ${channel}: choose a position`;
    cells(node, values.length, values[0].length, label, (r, c) => show(n, r, c), null);
    return el("figure", { "data-map": n }, el("figcaption", {}, `map ${channel}`), node);
  }));
  const values = data.maps[0].values, flat = values.flat(), best = flat.indexOf(Math.max(...flat));
  show(0, Math.floor(best / values[0].length), best % values[0].length);
  const image = el("img", { src: `${folder}/${key}.webp`, alt: "The image" });
  return el("div", { class: "lab" },
    el("div", { class: "pair" },
      el("figure", {}, el("figcaption", {}, "receptive field"),
        el("div", { class: "stage" }, image, frames[0])),
      el("figure", {}, el("figcaption", {}, "projection"),
        el("div", { class: "stage" }, patch, frames[1]))),
    el("div", {}, maps, selection));
}

async function imagePage(i) {
  const demo = INDEX.demos[i];
  if (!demo) throw new Error(`there is no demonstration image ${i}`);
  const data = await load(`image${i}`);
  return [
    el("div", { class: "title" }, el("h1", {}, className(demo.target)),
      el("nav", { "aria-label": "Other images" }, link("images", "all images"))),
    el("p", { class: "soft" }, `${demo.name}: `, demo.label === demo.target
      ? "most probable class" : ["predicted: ", classLink(demo.label)]),
    occlusionLab(data, "demos", i),
  ];
}
