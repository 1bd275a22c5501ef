// ------------------------------------------------------------------------------------- data

// Load data/<name>.js once. Browsers refuse to fetch from file://, but load scripts.
const loading = {};
function load(name) {
  loading[name] = loading[name] || new Promise((resolve, reject) => {
    const script = el("script", { src: `data/${name}.js` });
    script.onload = () =>
      (name in ATLAS ? resolve(ATLAS[name]) : reject(new Error(`data/${name}.js is damaged`)));
    script.onerror = () => reject(new Error(`data/${name}.js is missing`));
    document.head.append(script);
  });
  return loading[name];
}

// The part of an atlas that a page needs, by the first word of its route.
const PARTS = { classes: "classes", class: "classes", images: "images", image: "images" };
const layerOf = (name) => INDEX.layers.find((layer) => layer.name === name);
const done = (part) => !INDEX.missing.includes(part);
const className = (c) => INDEX.classes[c] ?? `output ${c}`;
const classLink = (c) => (LOOK ? el("span", {}, className(c)) : link(`class/${c}`, className(c)));
const kindName = (kind) => INDEX.kinds[kind] ?? "no class";

function kindLink(kind) {
  const output = INDEX.outputs[kind];
  return output >= 0
    ? link(`class/${output}`, INDEX.kinds[kind]) : el("span", {}, INDEX.kinds[kind]);
}

function corpusSize() {
  if (!INDEX.grouped) return count(INDEX.images, "image");
  return `${count(INDEX.images, "crop")} of ${count(INDEX.kinds.length, "photograph")}`;
}
const onePerPhotograph = () => (INDEX.grouped ? " (one per photograph and scale)" : "");

function slotOf(layer, feature) {
  const slot = layer.numbers.indexOf(feature);
  if (slot < 0) throw new Error(`this atlas has no page for feature ${feature} of ${layer.name}`);
  return slot;
}

// ------------------------------------------------------------------------------------- tiles

// Show one tile of a sheet of `columns` x `rows` as the background of an element of any size.
function place(node, sheet, column, row, columns, rows) {
  const at = (i, n) => (n > 1 ? `${(100 * i) / (n - 1)}%` : "0");
  Object.assign(node.style, {
    backgroundImage: `url("${sheet}")`,
    backgroundSize: `${100 * columns}% ${100 * rows}%`,
    backgroundPosition: `${at(column, columns)} ${at(row, rows)}`,
  });
  return node;
}

const tile = (label, tag = "span", attributes = {}) => el(tag, {
  class: "tile", role: tag === "span" ? "img" : null, "aria-label": label, ...attributes,
});

// A feature as one tile: its nine patches, its nine projections, or its filter.
function cover(layer, slot, kind) {
  const node = tile(`${layer.name}, feature ${layer.numbers[slot]}: ${kind}`);
  if (kind === "filters" || layer.field < INDEX.small) node.classList.add("crisp");
  const columns = kind === "filters" ? INDEX.filters : INDEX.across;
  const { url, at, features } = kind === "filters"
    ? { url: `sheets/${layer.name}-filters.webp`, at: slot, features: layer.numbers.length }
    : sheetOf(layer, slot, kind);
  const rows = Math.ceil(features / columns);
  return place(node, url, at % columns, Math.floor(at / columns), columns, rows);
}

// The sheet with a feature, its place there, and how many features the sheet has.
function sheetOf(layer, slot, kind) {
  const sheet = Math.floor(slot / INDEX.rows);
  const features = Math.min(INDEX.rows, layer.numbers.length - sheet * INDEX.rows);
  return { url: `sheets/${layer.name}-${kind}-${sheet}.webp`, at: slot % INDEX.rows, features };
}

// The tile of a feature's nth strongest image.
function strongest(node, layer, slot, kind, n) {
  const { url, at, features } = sheetOf(layer, slot, kind);
  if (layer.field < INDEX.small) node.classList.add("crisp");
  return placeNth(node, url, at, n, features);
}

// The nth tile of a feature in a sheet of blocks of 3 x 3 tiles.
function placeNth(node, url, at, n, features) {
  const { across, block } = INDEX;
  const column = block * (at % across) + (n % block);
  const row = block * Math.floor(at / across) + Math.floor(n / block);
  return place(node, url, column, row, block * across, block * Math.ceil(features / across));
}

function coverLink(layer, slot, kind, ...text) {
  const route = `${layer.name}/${layer.numbers[slot]}`;
  return el("li", {}, link(route, cover(layer, slot, kind), ...text));
}
