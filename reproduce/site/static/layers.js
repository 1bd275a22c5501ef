// ------------------------------------------------------------------------------------- home

function home() {
  const layers = [...INDEX.layers].reverse();
  const features = INDEX.layers.reduce((sum, layer) => sum + layer.numbers.length, 0);
  const all = INDEX.layers.reduce((sum, layer) => sum + layer.maps, 0);
  const some = features < all ? `${features} of the` : "The";
  const contents = `${some} ${count(all, "feature map")} of ${INDEX.network}, one page each.`;
  return [
    el("h1", {}, "What every feature of a network looks for"),
    el("p", { class: "large" }, contents),
    explanation(`Each page shows the nine strongest of ${corpusSize()}${onePerPhotograph()}, and`
      + " the deconvnet's projection of each. The boxes above lead to the layers.",
      "reproduce/site/atlas/__init__.py"),
    done(layers[0].name) ? el("div", { class: "bar" }, search(layers[0])) : null,
    layers.filter((layer) => done(layer.name)).map(layerStrip),
    done("images") && INDEX.demos.length
      ? [sectionTitle("Cover part of an image and see what changes"), demonstrations()] : null,
  ];
}

// A dozen features of a layer, evenly spread over its first sheet.
function layerStrip(layer) {
  const total = Math.min(INDEX.rows, layer.numbers.length), n = Math.min(12, total);
  const spread = (i) => Math.floor(((i + 0.5) * total) / n);
  const slots = Array.from({ length: n }, (_, i) => spread(i));
  return el("section", { class: "strip" },
    el("p", {}, el("strong", {}, link(layer.name, layer.name)), el("br"),
      el("small", {}, `${layer.maps} features, ${layer.field} pixels`)),
    el("ul", { class: "grid" }, slots.map((slot) => coverLink(layer, slot, "patches"))));
}

function demonstrations() {
  const item = (demo, i) => el("li", {}, link(`image/${i}`,
    el("img", { class: "tile", src: `demos/${i}.webp`, alt: "", loading: "lazy" }),
    className(demo.target),
    el("small", {}, demo.label === demo.target
      ? "most probable class" : `predicted: ${className(demo.label)}`)));
  return el("ul", { class: "grid large-tiles" }, INDEX.demos.map(item));
}

const images = () => [
  el("h1", {}, "Demonstration images"),
  explanation("Each image was covered by a gray square at every position. Its page shows the"
    + " strongest map, the logit and the label for each position, and projections of its strongest"
    + " maps.", "reproduce/site/atlas/demos.py"),
  demonstrations(),
];

// ------------------------------------------------------------------------------------- layer

// Orders of a layer's features: [name, explanation, key, label].
const SORTS = {
  number: ["number", "", () => 0, () => ""],
  sparsity: ["sparsity", "the share of positions with zero activation, largest first",
    (f) => -f.zero, (f) => `${percent(f.zero)} zero`],
  selectivity: ["selectivity", "(m − r) / (m + r), largest first. m is the mean response to the"
    + " class with the largest mean, r the mean over the other classes (Morcos et al. 2018)",
    (f) => -f.selectivity, (f) => number(f.selectivity, 2)],
  similarity: ["similarity", "correlation: each feature is followed by the remaining feature whose"
    + " responses correlate most with its own", null, () => ""],
  class: ["class", "", null, null],
};

// Lifts of a layer's features for one class, from 8-bit levels of their logarithm.
function liftsFor(data, layer, kind) {
  const level = atob(data.lift);
  const lift = (code) => (code ? 2 ** ((code - INDEX.one) / INDEX.octave) : 0);
  return layer.numbers.map((_, slot) => lift(level.charCodeAt(slot * INDEX.kinds.length + kind)));
}

function sortedSlots(layer, data, sort, lift) {
  const slots = layer.numbers.map((_, slot) => slot);
  if (sort === "similarity") return data.order.map((feature) => layer.numbers.indexOf(feature));
  if (sort === "class") return slots.sort((a, b) => lift[b] - lift[a] || a - b);
  const value = (slot) => SORTS[sort][2](data.features[slot]);
  return slots.sort((a, b) => value(a) - value(b) || a - b);
}

async function layerPage(name, query) {
  const layer = layerOf(name), data = await load(name);
  const typed = query.get("class"), requested = query.get("sort");
  const kind = /^\d+$/.test(typed) && INDEX.kinds[typed] !== undefined ? Number(typed) : null;
  let sort = requested !== "class" && Object.hasOwn(SORTS, requested) ? requested : "number";
  if (kind !== null && !requested) sort = "class";
  const isFirst = name === INDEX.layers[0].name;
  const covers = ["patches", "projections", ...(isFirst ? ["filters"] : [])];
  if (!covers.includes(state.covers)) state.covers = "patches";

  const lift = kind === null ? null : liftsFor(data, layer, kind);
  const slots = sortedSlots(layer, data, sort, lift);
  const label = (slot) =>
    (lift ? `× ${number(lift[slot], 3)}` : SORTS[sort][3](data.features[slot]));
  const grid = el("ul", { class: "grid" });
  const fill = (shown) => {
    state.covers = shown;
    grid.replaceChildren(...slots.map((slot) => coverLink(layer, slot, shown,
      el("span", {}, String(layer.numbers[slot])), " ", el("small", {}, label(slot)))));
  };
  fill(state.covers);

  const partial = layer.numbers.length < layer.maps ? `${layer.numbers.length} of ` : "";
  const title = kind === null ? `${name}: ${partial}${layer.maps} features`
    : [`${name}: which features respond to `, kindLink(kind), "?"];
  const noun = INDEX.outputs.some((output) => output >= 0) ? "class" : "photograph";
  return [
    el("div", { class: "title" }, el("h1", {}, title)),
    explanation(`One tile per feature: its nine strongest patches of ${layer.field} ×`
      + ` ${layer.field} pixels, or their projections${isFirst ? ", or its filter" : ""}.`
      + ` ${sortText(sort, kind)}`, "reproduce/site/atlas/sheets.py"),
    el("div", { class: "bar" },
      choice("Show", covers.map((shown) => [shown, shown]), state.covers, fill),
      el("label", {}, "sorted by ", sortMenu(name, query, sort, kind)), search(layer)),
    grid,
    el("p", { class: "soft" }, kbd("←"), " ", kbd("→"),
      ` other layers. Search for a ${noun} to sort the features by their response to it.`),
  ];
}

function sortText(sort, kind) {
  if (sort === "class") return "Sorted by lift: a feature's mean response to images of "
    + `${INDEX.kinds[kind]} divided by its mean response to all images.`;
  return SORTS[sort][1] ? `Sorted by ${SORTS[sort][1]}.` : "";
}

function sortMenu(name, query, sort, kind) {
  const go = (event) => {
    const chosen = new URLSearchParams(query);
    chosen.set("sort", event.target.value);
    chosen.delete(event.target.value === "class" ? "sort" : "class");
    location.hash = `#/${name}?${chosen}`;
  };
  const options = Object.keys(SORTS).filter((key) => key !== "class" || kind !== null);
  const text = (key) => (key === "class" ? INDEX.kinds[kind] : SORTS[key][0]);
  return el("select", { id: "order", change: go },
    options.map((key) => el("option", { value: key, selected: key === sort }, text(key))));
}
