// Draws the pages of an atlas, or of `look`, from the data beside it: ATLAS[name] = ... in data/<name>.js, loaded as
// scripts when they are needed. Whatever comes from the data becomes text or an attribute's value, never markup.
"use strict";

const INDEX = ATLAS.index;
if (!INDEX) { // a run that was stopped before it, or a copy without its data
  document.getElementById("view").textContent = "data/index.js is not there, or damaged: the command that writes this page was interrupted, and is to be run again.";
  throw new Error("no data");
}
const LOOK = INDEX.look; // of one image; an atlas has none
const SVG = "http://www.w3.org/2000/svg";
const state = { view: "both", covers: "patches", classes: "name" }; // what the reader chose, from page to page

// ---------------------------------------------------------------------------------------------------------- elements

function set(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "style") Object.assign(node.style, value);
    else if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, attributes, ...children) => set(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => set(document.createElementNS(SVG, tag), attributes, children);
const link = (route, ...children) => el("a", { href: `#/${route}` }, ...children);

// One sentence of explanation, and the file that made what is seen.
const why = (sentence, file) => el("p", { class: "why" }, `${sentence} `, el("small", {}, "Made by ", el("code", {}, file), "."));
const card = (title, sentence, file, ...children) => el("section", { class: "card" }, el("h2", {}, title), why(sentence, file), ...children);

function number(value, digits = 3) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size < 0.0001) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}
function percent(share) {
  const value = 100 * share;
  const digits = value === 0 || value === 100 ? 0 : value > 99.9 || value < 0.1 ? 3 : value > 99 || value < 10 ? 1 : 0;
  return `${value.toFixed(digits)} %`;
}
const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;

const corpusSize = () => (INDEX.grouped ? `${count(INDEX.images, "crop")} of ${count(INDEX.kinds.length, "photograph")}` : count(INDEX.images, "image"));

// Buttons of which one is pressed; `choose(value)` draws what it means.
function choice(name, options, chosen, choose) {
  const group = el("span", { class: "choice", role: "group", "aria-label": name });
  for (const [value, text] of options) {
    const press = () => {
      for (const button of group.children) button.setAttribute("aria-pressed", button === pressed);
      choose(value);
    };
    const pressed = el("button", { type: "button", "aria-pressed": String(value === chosen), "data-value": value, click: press }, text);
    group.append(pressed);
  }
  return group;
}

// Names with bars: [name or node, value, text, standard error].
function bars(rows) {
  const most = Math.max(...rows.map(([, value, , error]) => value + (error || 0)));
  const share = (value) => `${(100 * Math.max(0, value)) / most}%`;
  return el("div", { class: "rows" }, rows.map(([name, value, text, error]) => [
    el("span", {}, name),
    el("span", { class: "track" }, el("i", { style: { width: share(value) } }),
      error ? el("u", { style: { left: share(value - error), width: share(Math.min(2 * error, value + error)) } }) : null),
    el("span", {}, text),
  ]));
}

// ------------------------------------------------------------------------------------------------------ data, sprites

const loading = {};
function load(name) {
  loading[name] = loading[name] || new Promise((resolve, reject) => {
    const script = el("script", { src: `data/${name}.js` });
    script.onload = () => (name in ATLAS ? resolve(ATLAS[name]) : reject(new Error(`data/${name}.js is damaged`)));
    script.onerror = () => reject(new Error(`data/${name}.js is not there`));
    document.head.append(script);
  });
  return loading[name];
}

// A tile of a sheet of `columns` x `rows`, as the background of an element of any size.
function place(node, sheet, column, row, columns, rows) {
  const at = (i, n) => (n > 1 ? `${(100 * i) / (n - 1)}%` : "0");
  Object.assign(node.style, {
    backgroundImage: `url("${sheet}")`, backgroundSize: `${100 * columns}% ${100 * rows}%`, backgroundPosition: `${at(column, columns)} ${at(row, rows)}`,
  });
  return node;
}
const picture = (label, tag = "span", attributes = {}) => el(tag, { class: "tile", role: tag === "span" ? "img" : null, "aria-label": label, ...attributes });

const PARTS = { classes: "classes", class: "classes", images: "images", image: "images" }; // which a page needs
const layerOf = (name) => INDEX.layers.find((layer) => layer.name === name);
const done = (part) => !INDEX.missing.includes(part);
const className = (c) => INDEX.classes[c] ?? `output ${c}`;
const classLink = (c) => (LOOK ? el("span", {}, className(c)) : link(`class/${c}`, className(c)));
function kindLink(kind) {
  const output = INDEX.outputs[kind];
  return output >= 0 ? link(`class/${output}`, INDEX.kinds[kind]) : el("span", {}, INDEX.kinds[kind]);
}
function slotOf(layer, feature) {
  const slot = layer.numbers.indexOf(feature);
  if (slot < 0) throw new Error(`this atlas has no page for feature ${feature} of ${layer.name}`);
  return slot;
}

// Feature `slot` of a layer as one tile: its nine patches or projections, or its filter.
function cover(layer, slot, kind) {
  const rows = Math.ceil(layer.numbers.length / INDEX.covers);
  const node = picture(`${layer.name}, feature ${layer.numbers[slot]}: ${kind}`);
  if (kind === "filters") node.classList.add("crisp");
  return place(node, `sheets/${layer.name}-covers-${kind}.webp`, slot % INDEX.covers, Math.floor(slot / INDEX.covers), INDEX.covers, rows);
}

// The tile of a feature's n-th strongest image.
function strongest(node, layer, slot, kind, n) {
  const sheet = Math.floor(slot / INDEX.rows);
  const rows = Math.min(INDEX.rows, layer.numbers.length - sheet * INDEX.rows);
  return place(node, `sheets/${layer.name}-${kind}-${sheet}.webp`, n, slot % INDEX.rows, INDEX.columns, rows);
}

function coverLink(layer, slot, kind, ...text) {
  return el("li", {}, link(`${layer.name}/${layer.numbers[slot]}`, cover(layer, slot, kind), ...text));
}

// -------------------------------------------------------------------------------------------- the map of the network

// Figure 3: a box for every layer, its edge by the root of its side, its depth by the number of maps.
function drawMap() {
  const shown = INDEX.map.filter(({ name }) => /^(conv|fc)/.test(name));
  const input = { name: "input", operation: "an image", shape: [3, INDEX.side, INDEX.side] };
  for (const { name, operation, shape } of [input, ...shown]) {
    const [maps, side] = shape.length > 1 ? shape : [shape[0], 0];
    const boxes = [];
    const edge = side ? 44 * Math.sqrt(side / INDEX.side) : 30;
    const depth = side ? 1.7 * Math.log2(maps) : 0;
    const width = side ? edge * 0.62 : 6;
    for (const shift of side ? [1, 0.66, 0.33, 0] : [0]) {
      boxes.push(svg("rect", { x: 32 - (width + depth) / 2 + shift * depth, y: 32 - edge / 2 - shift * depth * 0.55 + depth * 0.27, width, height: edge, rx: 0.8 }));
    }
    const last = name === shown[shown.length - 1].name;
    const text = side ? [`${side} × ${side}`, name === "input" ? "pixels" : `${maps} maps`] : [last ? "classes" : "units", String(maps)];
    const route = layerOf(name) ? name : LOOK ? { input: "" }[name] : name === "input" ? "images" : last ? "classes" : undefined;
    const about = `${operation}: ${text.join(", ")}`;
    const inside = [svg("svg", { viewBox: "0 0 64 64", "aria-hidden": "true" }, boxes), el("b", {}, name), el("small", {}, text[0]), el("small", {}, text[1])];
    const attributes = { class: side ? "" : "dense", title: about, "data-route": route };
    document.getElementById("map").append(
      route === undefined ? el("span", { ...attributes, title: `${about}; no maps, and no page` }, inside) : el("a", { ...attributes, href: `#/${route}` }, inside));
  }
}

function markMap(name, query) {
  const page = PARTS[name] || name;
  for (const box of document.querySelectorAll("#map [data-route]")) {
    const route = box.dataset.route;
    if (route === page) box.setAttribute("aria-current", "page");
    else box.removeAttribute("aria-current");
    if (layerOf(route)) box.setAttribute("href", `#/${route}${query.has("like") ? `?like=${query.get("like")}` : ""}`);
  }
}

// ------------------------------------------------------------------------------------------------------------- pages

// The classes of the network that a word names: by a part of their name, or as a group ("dog" gives every breed).
function classesCalled(words) {
  const group = new Set((INDEX.groups || {})[words] || []);
  return INDEX.classes.map((_, c) => c).filter((c) => className(c).toLowerCase().includes(words) || group.has(c));
}

// A feature by its address: conv5/25, conv5 25 or conv5:25.
function featureCalled(words) {
  const [, name, number] = words.match(/^([a-z]+\d+)[\s/:#]+(\d+)$/) || [];
  const layer = name && layerOf(name);
  if (!layer) return null;
  if (layer.numbers.includes(Number(number))) return link(`${name}/${Number(number)}`, `${name} feature ${Number(number)}`);
  return el("span", { class: "soft" }, `${name} has no feature ${number} here: they go from ${layer.numbers[0]} to ${layer.numbers[layer.numbers.length - 1]}`);
}

// Which features respond to this class? Its name leads to a layer's features, sorted by their response; to the class's own page
// where the atlas has no images of it; and the address of a feature leads to its page.
function search(layer) {
  const found = el("ul", {});
  const type = () => {
    const typed = input.value.trim().toLowerCase();
    const feature = featureCalled(typed);
    found.replaceChildren(...(feature ? [el("li", {}, feature)] : typed ? classHits(layer, typed) : []));
  };
  const go = (event) => {
    event.preventDefault();
    const first = found.querySelector("a");
    if (first) location.hash = first.getAttribute("href");
  };
  const input = el("input", { type: "search", "aria-label": "Find a class or a feature", placeholder: "A class, or a feature as conv5/17", autocomplete: "off", input: type });
  return el("form", { class: "find", role: "search", submit: go }, input, found);
}

const SHOWN = 8; // hits below a search box
function classHits(layer, typed) {
  const words = typed.replace(/s$/, ""); // a plural
  const called = classesCalled(words);
  const group = new Set(called);
  const kinds = INDEX.kinds.map((name, kind) => [name.toLowerCase().indexOf(words), kind])
    .filter(([at, kind]) => at >= 0 || group.has(INDEX.outputs[kind]));
  kinds.sort((a, b) => (a[0] !== 0) - (b[0] !== 0) || a[1] - b[1]);
  const withImages = new Set(INDEX.outputs);
  const word = new RegExp(`\\b${words.replace(/[^a-z0-9]/g, "\\$&")}\\b`, "i");
  const rank = (c) => (className(c).toLowerCase() === words ? 0 : word.test(className(c)) ? 1 : 2);
  const others = called.filter((c) => !withImages.has(c)).sort((a, b) => rank(a) - rank(b) || a - b);
  const items = kinds.slice(0, SHOWN).map(([, kind]) => el("li", {}, link(`${layer.name}?like=${kind}`, INDEX.kinds[kind])));
  if (others.length) {
    items.push(el("li", { class: "soft" }, `${others.length === 1 ? "A class" : `${others.length} classes`} of the network without images in this atlas:`));
    const room = Math.max(1, SHOWN - items.length);
    items.push(...others.slice(0, room).map((c) => el("li", {}, done("classes") ? link(`class/${c}`, className(c)) : className(c))));
    if (others.length > room) items.push(el("li", {}, link(`classes?find=${encodeURIComponent(words)}`, `and ${others.length - room} more`)));
  }
  if (!items.length) items.push(el("li", { class: "soft" }, `No class is called "${typed}". Type a class, a group such as dog, or a feature such as ${layer.name}/${layer.numbers[0]}.`));
  return items;
}

function home() {
  const layers = [...INDEX.layers].reverse();
  const features = INDEX.layers.reduce((sum, layer) => sum + layer.numbers.length, 0);
  const all = INDEX.layers.reduce((sum, layer) => sum + layer.maps, 0);
  return [
    el("h1", {}, "What every feature of a network looks for"),
    el("p", { class: "big" }, features < all
      ? `${features} of the ${count(all, "feature map")} of ${INDEX.network}, each on a page of its own; without a limit, python -m reproduce atlas makes the page of every one.`
      : `The ${count(all, "feature map")} of ${INDEX.network}, each on a page of its own.`),
    why(`For each, the nine among ${corpusSize()} (${INDEX.corpus}) that excite it most${INDEX.grouped ? ", at most one a photograph and scale" : ""}, and what the deconvnet says it saw in them; the boxes of Figure 3, above, lead to its layers.`, "reproduce/atlas/__init__.py"),
    done(layers[0].name) ? el("div", { class: "bar" }, search(layers[0])) : null,
    layers.filter((layer) => done(layer.name)).map((layer) => {
      const many = Math.min(12, layer.numbers.length);
      const slots = Array.from({ length: many }, (_, i) => Math.floor(((i + 0.5) * layer.numbers.length) / many));
      return el("section", { class: "strip" },
        el("p", {}, el("strong", {}, link(layer.name, layer.name)), el("br"), el("small", {}, `${layer.maps} features, ${layer.field} pixels`)),
        el("ul", { class: "grid" }, slots.map((slot) => coverLink(layer, slot, "patches"))));
    }),
    done("images") && INDEX.demos.length ? [el("h2", { style: { marginTop: "2rem" } }, "Cover a part of an image, and see what changes"), demonstrations()] : null,
  ];
}

function demonstrations() {
  return el("ul", { class: "grid", style: { gridTemplateColumns: "repeat(auto-fill, minmax(8.5rem, 1fr))" } }, INDEX.demos.map((demo, i) => el("li", {},
    link(`image/${i}`, el("img", { class: "tile", src: `demos/${i}.webp`, alt: "", loading: "lazy" }), className(demo.target),
      el("small", {}, demo.label === demo.target ? "its most probable label" : `taken for ${className(demo.label)}`)))));
}

const images = () => [
  el("h1", {}, "Demonstration images"),
  why("A grey square covers each at every position: its page shows the strongest map, the logit and the label at each, and projections of its strongest maps.", "reproduce/atlas/demos.py"),
  demonstrations(),
];

const SORTS = {
  number: ["number", "", () => 0, () => ""],
  sparsity: ["sparsity", "the share of positions at which a feature is zero, largest first", (f) => -f.zero, (f) => `${percent(f.zero)} zero`],
  selectivity: ["selectivity", "(m − r) / (m + r), m the mean response to the class that it likes best and r that to the others (Morcos et al. 2018), largest first", (f) => -f.selectivity, (f) => number(f.selectivity, 2)],
  similarity: ["similarity", "features that answer to the same images side by side: each is followed by the one, of those left, whose responses correlate most with its own", null, () => ""],
  like: ["the class", "", null, null],
};

async function layerPage(name, query) {
  const layer = layerOf(name);
  const data = await load(name);
  const asked = query.get("sort"), like = /^\d+$/.test(query.get("like")) && INDEX.kinds[query.get("like")] !== undefined ? Number(query.get("like")) : null;
  const sort = like !== null && !asked ? "like" : asked !== "like" && Object.hasOwn(SORTS, asked) ? asked : "number";
  const covers = name === INDEX.layers[0].name ? ["patches", "projections", "filters"] : ["patches", "projections"];
  if (!covers.includes(state.covers)) state.covers = "patches";
  let lift = null;
  if (like !== null) { // 16 bits a feature and class, little-endian
    const bytes = Uint8Array.from(atob(data.lift), (c) => c.charCodeAt(0));
    const table = new DataView(bytes.buffer);
    lift = layer.numbers.map((_, slot) => table.getUint16(2 * (slot * INDEX.kinds.length + like), true) / INDEX.steps);
  }
  let slots = layer.numbers.map((_, slot) => slot);
  if (sort === "similarity") slots = data.order.map((feature) => layer.numbers.indexOf(feature));
  else if (sort === "like") slots.sort((a, b) => lift[b] - lift[a] || a - b);
  else slots.sort((a, b) => SORTS[sort][2](data.features[a]) - SORTS[sort][2](data.features[b]) || a - b);
  const label = (slot) => (lift ? `× ${number(lift[slot], 3)}` : SORTS[sort][3](data.features[slot]));

  const grid = el("ul", { class: "grid" });
  const fill = (kind) => {
    state.covers = kind;
    grid.replaceChildren(...slots.map((slot) => coverLink(layer, slot, kind, el("span", {}, String(layer.numbers[slot])), " ", el("small", {}, label(slot)))));
  };
  fill(state.covers);
  const go = (event) => {
    const chosen = new URLSearchParams(query);
    chosen.set("sort", event.target.value);
    if (event.target.value !== "like") chosen.delete("like");
    else chosen.delete("sort");
    location.hash = `#/${name}?${chosen}`;
  };
  const options = Object.entries(SORTS).filter(([key]) => key !== "like" || like !== null);
  const order = el("select", { id: "order", change: go }, options.map(([key, [text]]) => el("option", { value: key, selected: key === sort }, key === "like" ? INDEX.kinds[like] : text)));
  const kinds = INDEX.outputs.some((output) => output >= 0) ? "class" : "photograph";
  const sorted = sort === "like" ? `Sorted by lift: the mean of a feature's maxima over the images of ${INDEX.kinds[like]}, divided by that over all images.` : SORTS[sort][1] ? `Sorted by ${SORTS[sort][1]}.` : "";
  return [
    el("div", { class: "title" }, el("h1", {}, like !== null ? [`${name}: what likes `, kindLink(like), "?"] : `${name}: ${layer.numbers.length < layer.maps ? `${layer.numbers.length} of ` : ""}${layer.maps} features`)),
    why(`One tile a feature: the nine patches of ${layer.field} × ${layer.field} pixels that excite it most, or their projections${covers.length > 2 ? ", or its filter" : ""}. ${sorted}`, "reproduce/atlas/sheets.py"),
    el("div", { class: "bar" }, choice("Shown", covers.map((kind) => [kind, kind]), state.covers, fill), el("label", {}, "sorted by ", order), search(layer)),
    grid,
    el("p", { class: "soft" }, el("kbd", {}, "←"), " ", el("kbd", {}, "→"), ` other layers. A ${kinds}'s name in the search box sorts the features by how much they like it.`),
  ];
}

async function featurePage(name, feature) {
  const layer = layerOf(name);
  const slot = slotOf(layer, feature);
  const [data, names] = await Promise.all([load(name), load("names")]);
  const item = data.features[slot];
  const told = el("p", { class: "told", role: "status" });
  const tiles = [];
  const tell = (n) => {
    for (const [rank, tile] of tiles) tile.classList.toggle("chosen", rank === n);
    const i = item.image[n], kind = names.kind[i], output = kind >= 0 ? INDEX.outputs[kind] : -1;
    const taken = output >= 0 && names.taken[i] !== output ? [", taken for ", classLink(names.taken[i])] : [];
    told.replaceChildren(`${n + 1}. `, kind >= 0 ? kindLink(kind) : "no class", ...taken, el("br"), `activation ${number(item.value[n], 4)} at row ${item.position[n][0]}, column ${item.position[n][1]} `, el("br"), el("small", {}, names.name[i]));
  };
  const kindOf = (n) => INDEX.kinds[names.kind[item.image[n]]] ?? "no class";
  const events = (n) => ({ click: () => tell(n), focus: () => tell(n), pointerenter: () => tell(n) });
  const nine = (kind, text) => el("figure", { "data-kind": kind }, el("figcaption", {}, text), el("div", { class: "nine" }, item.value.map((value, n) => {
    const tile = strongest(picture(`${n + 1}. ${kindOf(n)}, ${kind}`, "button", { type: "button", ...events(n) }), layer, slot, kind, n);
    if (layer.side >= 3 * layer.field) tile.classList.add("crisp");
    tiles.push([n, tile]);
    return tile;
  })));
  const both = { patches: nine("patches", `What it saw: ${layer.field} × ${layer.field} pixels`), projections: nine("projections", "What it made of it: projections to pixels") };
  const show = (view) => {
    state.view = view;
    for (const [kind, figure] of Object.entries(both)) figure.hidden = view !== "both" && view !== kind;
  };
  show(state.view);
  const at = INDEX.layers.indexOf(layer);
  const step = (text, title, target) => (target ? el("a", { href: `#/${target}`, title, "aria-label": title }, text) : null);
  const [left, right, up, down] = ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].map((key) => neighbour(key, name, feature));
  const ranks = item.value.map((value, n) => {
    const row = el("li", events(n), `${kindOf(n)} `, el("small", {}, number(value, 4)));
    tiles.push([n, row]);
    return row;
  });
  if (item.value.length) tell(0);
  return [
    el("div", { class: "title" }, el("h1", {}, link(name, name), ` feature ${feature}`),
      el("nav", { "aria-label": "Neighbours" }, step("←", "The feature before", left), step("→", "The feature after", right),
        step(`↑ ${INDEX.layers[at + 1]?.name}`, "The layer above", up), step(`↓ ${INDEX.layers[at - 1]?.name}`, "The layer below", down))),
    why(`The nine of ${corpusSize()} that excite this feature most${INDEX.grouped ? ", at most one a photograph and scale" : ""}, strongest first, and its activation in each projected to pixels by the deconvnet.`, "reproduce/atlas/sheets.py"),
    item.value.length ? [
      el("div", { class: "bar" }, choice("Shown", [["both", "together"], ["patches", "patches"], ["projections", "projections"]], state.view, show),
        el("span", { class: "soft" }, el("kbd", {}, "p"), " alternates; ", el("kbd", {}, "←"), " ", el("kbd", {}, "→"), " features, ", el("kbd", {}, "↑"), " ", el("kbd", {}, "↓"), " layers")),
      el("div", { class: "nines" }, both.patches, both.projections,
        at === 0 ? el("figure", { class: "filter" }, el("figcaption", {}, "The filter itself"), cover(layer, slot, "filters")) : null,
        el("div", { class: "ranks" }, el("ol", {}, ranks), told))] : el("p", { class: "big" }, "No image excites this feature: it is dead."),
    el("div", { class: "cards" }, numbersCard(layer, data, item), item.value.length ? likesCard(name, item) : null, item.similar.length ? similarCard(layer, item) : null, canonical(`${name}/${feature}`)),
  ];
}

function numbersCard(layer, data, item) {
  const total = item.histogram.reduce((a, b) => a + b, 0);
  const where = data.step > 1 ? `positions in every ${{ 2: "second", 3: "third" }[data.step] || `${data.step}th`} row and column` : "positions";
  return card("How it is active", `Its activations above zero, over all images and ${where}, on a logarithmic axis: areas are shares.`, "reproduce/atlas/tables.py",
    total ? histogram(item.histogram, total) : null,
    el("dl", {}, el("dt", {}, "zero at"), el("dd", {}, `${percent(item.zero)} of positions`),
      el("dt", {}, "silent in"), el("dd", {}, `${percent(item.silent)} of images`),
      el("dt", {}, "strongest"), el("dd", {}, item.value.length ? number(item.value[0], 4) : "–"),
      el("dt", {}, "selectivity"), el("dd", {}, number(item.selectivity, 3)),
      el("dt", {}, "it sees"), el("dd", {}, `${layer.field} × ${layer.field} pixels, every ${layer.stride}`)));
}

// On a logarithmic axis, areas as shares: half octaves are not all of one width there.
function histogram(counts, total) {
  const first = counts.findIndex((n) => n > 0), last = counts.length - [...counts].reverse().findIndex((n) => n > 0);
  const edges = INDEX.edges.slice(first, last + 1).map(Math.log2), most = edges.length - 1;
  const x = (v) => 5 + (320 * (v - edges[0])) / (edges[most] - edges[0]);
  const density = edges.slice(1).map((edge, i) => counts[first + i] / (edge - edges[i])), top = Math.max(...density);
  const drawing = svg("svg", { class: "hist", viewBox: "0 0 330 122", role: "img", "aria-label": "Histogram of activations above zero" });
  density.forEach((n, i) => {
    const height = (95 * n) / top, [low, high] = [edges[i], edges[i + 1]].map((v) => number(2 ** v));
    drawing.append(svg("rect", { x: x(edges[i]), y: 102 - height, width: Math.max(x(edges[i + 1]) - x(edges[i]) - 1, 0.5), height },
      svg("title", {}, `${low} to ${high}: ${percent(counts[first + i] / total)}`)));
  });
  drawing.append(svg("line", { x1: 5, x2: 325, y1: 102.5, y2: 102.5 }));
  const octaves = Math.floor(edges[most]) - Math.ceil(edges[0]), every = Math.max(1, Math.ceil(octaves / 6));
  for (let v = Math.floor(edges[most]); x(v) >= 20; v -= every) { // a label every few octaves, from the right
    drawing.append(svg("text", { x: Math.min(x(v), 312), y: 117, "text-anchor": "middle" }, number(2 ** v, 2)));
  }
  return drawing;
}

function likesCard(name, item) {
  const rows = item.likes.map(([kind, lift, error]) => [link(`${name}?like=${kind}`, INDEX.kinds[kind]), lift, `× ${number(lift, 3)}${error ? ` ± ${number(error, 2)}` : ""}`, error]);
  return card("What it likes", "Mean response (its maximum in an image) to a class's images over that to all images, with its standard error; the name leads to the features that like the class most.", "reproduce/atlas/summary.py", bars(rows));
}

function similarCard(layer, item) {
  return card("Features like it", "Those of its layer whose maxima correlate most with its own, over all images.", "reproduce/atlas/summary.py",
    el("ul", { class: "grid near" }, item.similar.map(([feature, r]) => coverLink(layer, slotOf(layer, feature), "patches", el("span", {}, String(feature)), " ", el("small", {}, `r = ${number(r, 2)}`)))));
}

// Where asked: what gradient ascent draws for a class or a feature.
function canonical(page) {
  const found = (INDEX.canonical || {})[page];
  if (!found) return null;
  const probability = found.probability === undefined ? "" : `, probability ${percent(found.probability)}`;
  return card("Its canonical image", "What gradient ascent draws from noise to excite it: what it would most like to see, not an image of the data.", "reproduce/atlas/canonical.py",
    el("img", { class: "canonical", src: found.file, alt: "The image that gradient ascent draws" }), el("small", {}, `it answers ${number(found.value)}${probability}`));
}

async function classes(query) {
  const data = await load("classes");
  const list = el("ul", { class: "list" });
  const ratio = (c) => (data.classes[c].images ? data.classes[c].right / data.classes[c].images : -1);
  const text = (c) => (data.classes[c].images ? `${data.classes[c].right} of ${data.classes[c].images}` : `taken ${count(data.classes[c].taken, "time")}`);
  const labelled = data.classes.some((item) => item.images);
  const fill = () => {
    const order = classesCalled(input.value.trim().toLowerCase());
    if (state.classes !== "name") order.sort((a, b) => !data.classes[a].images - !data.classes[b].images || (state.classes === "best" ? -1 : 1) * (labelled ? ratio(a) - ratio(b) : data.classes[a].taken - data.classes[b].taken) || a - b);
    else order.sort((a, b) => className(a).localeCompare(className(b), "en", { numeric: true }));
    list.replaceChildren(...order.map((c) => el("li", {}, classLink(c), el("small", {}, text(c)))));
  };
  const input = el("input", { type: "search", placeholder: "Find a class", "aria-label": "Find a class", value: query.get("find") || "", input: fill });
  fill();
  return [
    el("h1", {}, count(INDEX.classes.length, "class", "classes")),
    why(labelled ? "What the network tells apart, and how many of each class's images it gets right." : "What the network tells apart, and how many of the images it takes for each; these images have no classes of their own.", "reproduce/atlas/summary.py"),
    el("div", { class: "bar" }, input, choice("Sorted by", [["name", "name"], ["best", labelled ? "best first" : "most first"], ["worst", labelled ? "worst first" : "fewest first"]], state.classes, (value) => { state.classes = value; fill(); })),
    list,
  ];
}

async function classPage(c) {
  const [data, names] = await Promise.all([load("classes"), load("names")]);
  const item = data.classes[c];
  if (!item) throw new Error(`the network has no output ${c}`);
  const kind = INDEX.outputs.indexOf(c);
  const last = INDEX.layers[INDEX.layers.length - 1];
  const shown = item.top.map((i, n) => {
    const at = data.shown.indexOf(i), per = INDEX.thumbnails ** 2, sheet = Math.floor(at / per);
    const rows = Math.ceil(Math.min(per, data.shown.length - sheet * per) / INDEX.thumbnails);
    const is = names.kind[i] >= 0 ? INDEX.kinds[names.kind[i]] : "no class";
    const tile = place(picture(is), `sheets/images-${sheet}.webp`, at % INDEX.thumbnails, Math.floor((at % per) / INDEX.thumbnails), INDEX.thumbnails, rows);
    return el("li", { title: names.name[i] }, tile, el("small", {}, `${number(item.logit[n], 3)} · ${is}`));
  });
  return [
    el("h1", {}, className(c)),
    why(`The nine images that this output answers most, whatever they show${INDEX.grouped ? ", at most one a photograph and scale" : ""}: the logit, and what they are images of.`, "reproduce/atlas/summary.py"),
    el("ul", { class: "grid" }, shown),
    el("div", { class: "cards" },
      card("How well it is known", item.images ? "Of the class's images, how many have it as their most probable label, and what the others are taken for." : "No image here is labelled with it; how many are taken for it.", "reproduce/atlas/summary.py",
        el("p", { class: "big" }, item.images ? `${item.right} of ${item.images} right: ${percent(item.right / item.images)}` : `${count(item.taken, "image")} taken for it`),
        item.confused.length ? bars(item.confused.map(([other, n]) => [classLink(other), n, String(n)])) : null),
      item.drive ? card(`What drives its logit`, `What each ${last.name} map gives to the logit of its ${item.of === 1 ? "image" : "images"} (gradient times activation, summed over positions; mean of ${item.of}), of ${number(item.mean)} in all, biases included.`, "reproduce/atlas/tables.py",
        el("ul", { class: "grid near" }, item.drive.map(([feature, share]) => {
          const slot = last.numbers.indexOf(feature), text = [el("span", {}, String(feature)), " ", el("small", {}, `+${number(share, 2)}`)];
          return slot >= 0 && done(last.name) ? coverLink(last, slot, "patches", ...text) : el("li", {}, el("span", { class: "tile" }), ...text);
        }))) : null,
      canonical(`class/${c}`),
      kind >= 0 ? card("Which features like it?", "The features of a layer, sorted by how much more they answer to this class than to all images.", "reproduce/atlas/summary.py",
        el("p", {}, INDEX.layers.map((layer) => [link(`${layer.name}?like=${kind}`, layer.name), " "]))) : null),
  ];
}

// ------------------------------------------------------------------------------------------- the occluder, and its maps

// A focusable grid: pointer and arrow keys choose a cell, `leave` is called when there is none.
function cells(node, rows, columns, label, choose, leave, at = (x, y) => [Math.floor(y * rows), Math.floor(x * columns)]) {
  let here = null;
  const clip = (r, c) => [Math.max(0, Math.min(rows - 1, r)), Math.max(0, Math.min(columns - 1, c))];
  const go = (r, c) => choose(...(here = clip(r, c)));
  const point = (event) => {
    const frame = node.getBoundingClientRect();
    go(...at((event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height));
  };
  const keys = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  return set(node, {
    tabindex: 0, role: "application", "aria-label": label, pointerdown: point,
    pointermove: (event) => { if (leave || event.buttons) point(event); },
    pointerleave: (event) => { // a lifted finger leaves the occluder where it was
      if (leave && event.pointerType === "mouse" && document.activeElement !== node) { here = null; leave(); }
    },
    keydown: (event) => {
      if (event.key === "Escape" && leave) { here = null; leave(); }
      if (!keys[event.key]) return;
      event.preventDefault();
      const [r, c] = here || [(rows - 1) >> 1, (columns - 1) >> 1];
      go(r + keys[event.key][0], c + keys[event.key][1]);
    },
  }, []);
}

// A map (rows, columns) in colours, a pixel a cell.
function paint(values, colour) {
  const canvas = el("canvas", { width: values[0].length, height: values.length, "aria-hidden": "true" });
  const context = canvas.getContext("2d");
  values.forEach((row, r) => row.forEach((value, c) => { context.fillStyle = colour(value); context.fillRect(c, r, 1, 1); }));
  return canvas;
}
function heat(values, low = null) {
  const flat = values.flat(), least = low ?? Math.min(...flat), most = Math.max(...flat);
  return paint(values, (v) => INDEX.heat[most > least ? Math.round(((v - least) / (most - least)) * (INDEX.heat.length - 1)) : 0]);
}
function framed(canvas, values) {
  const mark = el("i", { hidden: true });
  const [rows, columns] = [values.length, values[0].length];
  const move = (r, c) => {
    mark.hidden = r === null;
    if (r !== null) Object.assign(mark.style, { top: `${(100 * r) / rows}%`, left: `${(100 * c) / columns}%`, height: `${100 / rows}%`, width: `${100 / columns}%` });
  };
  return [el("div", { class: "cell" }, canvas, mark), move];
}

const share = (value, side) => `${(100 * value) / side}%`;

function laboratory(data, folder, key) {
  const rows = data.rows.length, columns = data.columns.length, base = data.baseline;
  const frequent = [...data.label.flat().reduce((seen, c) => seen.set(c, (seen.get(c) || 0) + 1), new Map())].sort((a, b) => b[1] - a[1]).slice(0, INDEX.colours.length);
  const colour = (c) => INDEX.colours[frequent.findIndex(([label]) => label === c)] || "#8a8a8a";
  const occluder = el("div", { class: "box occluder", hidden: true });
  const stage = el("div", { class: "stage" }, el("img", { src: `${folder}/${key}.webp`, alt: "The image" }), occluder);
  const readout = el("dl", { class: "readout", role: "status" });
  const movers = [];

  const line = (name, text, id) => [el("dt", {}, name), el("dd", { "data-id": id }, text)];
  const tell = (r, c) => {
    const covered = r !== null;
    const value = (name) => (covered ? data[name][r][c] : base[name]);
    const change = (name) => (covered && base[name] ? ` (${value(name) >= base[name] ? "+" : "−"}${Math.abs(100 * (value(name) / base[name] - 1)).toFixed(0)} %)` : "");
    occluder.hidden = !covered;
    if (covered) {
      const [top, bottom] = data.rows[r], [left, right] = data.columns[c];
      Object.assign(occluder.style, { top: share(top, data.side), left: share(left, data.side), height: share(bottom - top, data.side), width: share(right - left, data.side) });
    }
    for (const move of movers) move(r, c);
    readout.replaceChildren(
      ...line("occluder", covered ? `row ${r + 1} of ${rows}, column ${c + 1} of ${columns}` : "none", "occluder"),
      ...line(`${data.layer}, map ${data.channel}`, `${number(value("activation"), 4)}${change("activation")}`, "activation"),
      ...line(`logit of ${className(data.target)}`, number(value("logit"), 4), "logit"),
      ...line("its probability", percent(value("probability")), "probability"),
      ...line("most probable", [el("i", { class: "key", style: { background: colour(value("label")) } }), className(value("label"))], "label"));
  };
  const position = (edges, v) => { // of the occluder whose middle is nearest
    const distance = edges.map(([from, to]) => Math.abs((from + to) / 2 - v * data.side));
    return distance.indexOf(Math.min(...distance));
  };
  cells(stage, rows, columns, "The image: move the occluder with the pointer or the arrow keys, Escape takes it away", tell, () => tell(null, null),
    (x, y) => [position(data.rows, y), position(data.columns, x)]);
  const small = (title, canvas, values) => {
    const [frame, move] = framed(canvas, values);
    movers.push(move);
    cells(frame, rows, columns, `${title}: move the occluder`, tell, () => tell(null, null));
    frame.tabIndex = -1; // the image itself is on the way of the keyboard
    return el("figure", {}, el("figcaption", {}, title), frame);
  };
  const maps = el("div", { class: "maps" },
    small(`total of map ${data.channel}`, heat(data.activation), data.activation),
    small("logit", heat(data.logit), data.logit),
    small("probability", heat(data.probability, 0), data.probability),
    small("most probable", paint(data.label, colour), data.label));
  const others = new Set(data.label.flat()).size - frequent.length;
  const legend = el("ul", { class: "legend" }, frequent.map(([c]) => el("li", {}, el("i", { class: "key", style: { background: colour(c) } }), className(c))),
    others > 0 ? el("li", {}, el("i", { class: "key", style: { background: "#8a8a8a" } }), `${others} others`) : null);
  tell(null, null);
  return [
    why(`A grey square of ${data.size} pixels stands where you point, or where the arrow keys move it; the numbers were recorded at every ${data.stride} pixels, and the maps show them all, dark where they are low.`, "reproduce/atlas/demos.py"),
    el("div", { class: "lab" }, stage, el("div", {}, readout, maps, legend)),
    el("h2", { style: { marginTop: "2rem" } }, `Its four strongest ${data.layer} maps`.replace("four", { 1: "one", 2: "two", 3: "three", 4: "four" }[data.maps.length])),
    why("Choose a position of a map, with the pointer or the arrow keys: its activation there is projected to pixels by the deconvnet, in the frame of what it sees.", "reproduce/atlas/demos.py"),
    projections(data, folder, key),
  ];
}

function projections(data, folder, key) {
  const { size, stride, offset } = data.field;
  const boxed = () => el("div", { class: "box field", hidden: true });
  const patch = el("div", { class: "box tile" });
  const fields = [boxed(), boxed()];
  const told = el("p", { class: "told", role: "status" });
  const movers = [];
  const show = (n, r, c) => {
    const { channel, values } = data.maps[n], value = values[r][c];
    movers.forEach((move, other) => move(...(other === n ? [r, c] : [null, null])));
    const where = { top: share(offset + r * stride, data.side), left: share(offset + c * stride, data.side), width: share(size, data.side), height: share(size, data.side) };
    for (const node of [...fields, patch]) { node.hidden = false; Object.assign(node.style, where); }
    place(patch, `${folder}/${key}-map${n}.webp`, c, r, values[0].length, values.length);
    patch.style.visibility = value > 0 ? "visible" : "hidden";
    const page = LOOK ? `map ${channel}` : link(`${data.layer}/${channel}`, `map ${channel}`);
    told.replaceChildren(page, value > 0 ? `, row ${r}, column ${c}: activation ${number(value, 4)}` : `, row ${r}, column ${c}: silent, and nothing to project`);
  };
  const maps = el("div", { class: "maps" }, data.maps.map(({ channel, values }, n) => {
    const [frame, move] = framed(heat(values, 0), values);
    movers.push(move);
    cells(frame, values.length, values[0].length, `Map ${channel}: choose a position`, (r, c) => show(n, r, c), null);
    return el("figure", { "data-map": n }, el("figcaption", {}, `map ${channel}`), frame);
  }));
  const values = data.maps[0].values, flat = values.flat(), best = flat.indexOf(Math.max(...flat));
  show(0, Math.floor(best / values[0].length), best % values[0].length);
  return el("div", { class: "lab" },
    el("div", { class: "pair" },
      el("figure", {}, el("figcaption", {}, "what it sees"), el("div", { class: "stage" }, el("img", { src: `${folder}/${key}.webp`, alt: "The image" }), fields[0])),
      el("figure", {}, el("figcaption", {}, "its projection"), el("div", { class: "stage" }, patch, fields[1]))),
    el("div", {}, maps, told));
}

async function imagePage(i) {
  const demo = INDEX.demos[i];
  if (!demo) throw new Error(`there is no demonstration image ${i}`);
  const data = await load(`image${i}`);
  return [
    el("div", { class: "title" }, el("h1", {}, className(demo.target)), el("nav", { "aria-label": "Other images" }, link("images", "all images"))),
    el("p", { class: "soft" }, `${demo.name}: `, demo.label === demo.target ? "its most probable label" : ["taken for ", classLink(demo.label)]),
    laboratory(data, "demos", i),
  ];
}

// -------------------------------------------------------------------------------------------- one image of the reader's

async function lookHome() {
  const data = await load("image");
  return [
    el("h1", {}, LOOK.name),
    why("What the network takes the image for: its five most probable classes.", "reproduce/atlas/look.py"),
    el("div", { class: "card" }, bars(LOOK.prediction.map(([c, p, logit]) => [className(c), p, `${percent(p)}, logit ${number(logit, 3)}`]))),
    el("h2", { style: { marginTop: "2rem" } }, "Cover a part of it, and see what changes"),
    laboratory(data, "demos", "image"),
    el("h2", { style: { marginTop: "2rem" } }, `What speaks for ${className(data.target)}`),
    why("Maps of what raises the class's logit; each is scaled by its own largest values.", "reproduce/atlas/look.py"),
    el("div", { class: "pictures" }, LOOK.attributions.map(({ name, file, said }) => el("figure", {}, el("figcaption", {}, name.replaceAll("_", " ")), el("img", { src: file, alt: said }), el("small", {}, said)))),
    el("p", { style: { marginTop: "1.5rem" } }, "Its strongest features, layer by layer: ", INDEX.layers.map((layer) => [link(layer.name, layer.name), " "])),
  ];
}

async function lookLayer(name) {
  const layer = layerOf(name), data = await load(name), n = data.features.length;
  const row = (feature, f) => {
    const own = (kind, column) => el("figure", { style: { margin: 0 } }, el("figcaption", {}, kind), place(picture(`this image's ${kind}`), `sheets/${name}-own.webp`, column, f, 2, n));
    const many = feature.neighbours;
    const nine = (kind) => el("div", { class: "nine" }, Array.from({ length: many }, (_, rank) => place(picture(`${rank + 1}. neighbour, ${kind}`), `sheets/${name}-${kind}.webp`, rank, f, INDEX.columns, n)));
    return el("section", { class: "wide" },
      el("p", {}, el("strong", {}, `feature ${feature.number}`), ` activation ${number(feature.value, 4)} at row ${feature.position[0]}, column ${feature.position[1]}`),
      own("patch", 0), own("projection", 1),
      el("div", { class: "neighbours" }, many ? [el("figcaption", {}, "the images of the atlas that excite it most, and their projections"), nine("patches"), el("div", { style: { height: ".2rem" } }), nine("projections")] : LOOK.atlas ? el("p", { class: "soft" }, "The atlas has no pictures for it.") : null));
  };
  return [
    el("h1", {}, `${name}: its strongest features`),
    why(`The ${n} maps of ${layer.maps} that this image excites most, what each saw of it, and its projection${LOOK.atlas ? `; beside it its strongest images among ${LOOK.atlas}` : ""}.`, "reproduce/atlas/look.py"),
    LOOK.atlas ? null : el("p", {}, LOOK.why),
    data.features.map(row),
  ];
}

// ------------------------------------------------------------------------------------------------------ routes and keys

function parse() {
  let address = location.hash;
  try {
    address = decodeURI(address);
  } catch { /* no proper escapes: a page that is not there */ }
  const [path, query] = address.replace(/^#\/?/, "").split("?");
  return [path.split("/").filter(Boolean), new URLSearchParams(query || "")];
}

// Where an arrow key leads from a page: the feature beside it, the same place in the layer above or below; null at the end.
function neighbour(key, name, feature) {
  const at = INDEX.layers.findIndex((layer) => layer.name === name), layer = INDEX.layers[at];
  if (feature === null) {
    const next = INDEX.layers[at + { ArrowLeft: -1, ArrowRight: 1 }[key]];
    return next ? next.name : null;
  }
  const slot = layer.numbers.indexOf(feature);
  if (key === "ArrowLeft" || key === "ArrowRight") {
    const next = layer.numbers[slot + (key === "ArrowLeft" ? -1 : 1)];
    return next === undefined ? null : `${name}/${next}`;
  }
  const other = INDEX.layers[at + (key === "ArrowUp" ? 1 : -1)];
  return other && done(other.name) ? `${other.name}/${other.numbers[Math.min(slot, other.numbers.length - 1)]}` : null;
}

function page(path, query) {
  const [name, second] = path;
  if (name === undefined) return LOOK ? lookHome() : home();
  if (layerOf(name)) {
    if (!done(name)) throw new Error(`${name} is not there yet`);
    if (LOOK) return lookLayer(name);
    if (second !== undefined && !/^\d+$/.test(second)) throw new Error(`${second} is no feature of ${name}`);
    return second === undefined ? layerPage(name, query) : featurePage(name, Number(second));
  }
  const pages = new Map([["classes", () => classes(query)], ["images", images], ["class", () => classPage(Number(second))], ["image", () => imagePage(Number(second))]]);
  if (!pages.has(name) || LOOK) throw new Error(`there is no page ${path.join("/")}`);
  const part = PARTS[name];
  if (!done(part)) throw new Error(`the ${part} are not there yet`);
  return pages.get(name)();
}

let turn = 0;
async function show() {
  const mine = ++turn, view = document.getElementById("view");
  const [path, query] = parse();
  markMap(path[0] ?? (LOOK ? "" : undefined), query);
  let content;
  try {
    content = await page(path, query);
  } catch (error) {
    content = [el("h1", {}, "Nothing here"), el("p", {}, `${error.message}. `, link("", "To the beginning"), ".")];
  }
  if (mine !== turn) return; // another page was asked for meanwhile
  const held = view.contains(document.activeElement) ? document.activeElement.id : null;
  view.replaceChildren();
  set(view, {}, content);
  if (held !== null) (document.getElementById(held) || view).focus({ preventScroll: true }); // else the keyboard's place is lost
  const heading = view.querySelector("h1");
  document.title = `${heading.textContent} – ${LOOK ? "a look inside" : `atlas of ${INDEX.network}`}`;
  view.dataset.route = path.join("/"); // says to tests that the page is drawn
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("input, select, textarea, [role=application]")) return;
  const [[name, second]] = parse();
  if (!layerOf(name) || !done(name)) return;
  const feature = LOOK || second === undefined ? null : Number(second);
  if (event.key === "p" && feature !== null) {
    const shown = document.querySelector(`.choice [data-value=${state.view === "patches" ? "projections" : "patches"}]`);
    if (shown) shown.click();
  }
  if (!/^Arrow/.test(event.key) || (feature === null && /Up|Down/.test(event.key))) return; // which scroll a grid
  const target = neighbour(event.key, name, feature);
  event.preventDefault();
  if (target) location.hash = `#/${target}`;
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the address names a page, not a place on it
  document.getElementById("view").focus();
});
window.addEventListener("hashchange", () => { window.scrollTo(0, 0); show(); });

const [brand, about] = document.querySelector(".brand").children;
brand.textContent = LOOK ? "A look inside" : "The atlas";
about.textContent = LOOK ? `${LOOK.name}, through ${INDEX.network}` : `the network ${INDEX.network}, on ${corpusSize()} (${INDEX.corpus})`;
const unfinished = document.getElementById("unfinished");
unfinished.hidden = !INDEX.missing.length;
unfinished.textContent = `This atlas is not finished; still missing: ${INDEX.missing.join(", ")}. The command that began it goes on where it stopped.`;
document.querySelector("footer").append(el("p", {}, "Written by ", el("code", {}, LOOK ? "python -m reproduce look IMAGE" : "python -m reproduce atlas"), ": network ", el("code", { title: INDEX.checkpoint }, INDEX.checkpoint.slice(0, 12)),
  INDEX.data ? [", images ", el("code", { title: INDEX.data }, INDEX.data.slice(0, 12))] : "", "."));
drawMap();
show();
