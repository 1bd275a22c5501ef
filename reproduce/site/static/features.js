// ------------------------------------------------------------------------------------- feature

async function featurePage(name, feature) {
  const layer = layerOf(name);
  const slot = slotOf(layer, feature);
  const [data, names] = await Promise.all([load(name), load("names")]);
  const item = data.features[slot];
  return [
    featureTitle(name, feature),
    explanation(`The nine strongest of ${corpusSize()}${onePerPhotograph()}, and the deconvnet's`
      + " projection of the activation in each.", "reproduce/site/atlas/sheets.py"),
    item.value.length ? strongestImages(layer, slot, item, names)
      : el("p", { class: "large" }, "No image activates this feature: it is dead."),
    el("div", { class: "cards" },
      statisticsCard(layer, data, item),
      item.value.length ? classesCard(name, item) : null,
      item.similar.length ? similarCard(layer, item) : null,
      canonicalCard(`${name}/${feature}`)),
  ];
}

// The name of a feature, with links to its neighbors.
function featureTitle(name, feature) {
  const at = INDEX.layers.indexOf(layerOf(name));
  const step = (key, text, title) => {
    const target = neighbor(key, name, feature);
    return target ? el("a", { href: `#/${target}`, title, "aria-label": title }, text) : null;
  };
  return el("div", { class: "title" }, el("h1", {}, link(name, name), ` feature ${feature}`),
    el("nav", { "aria-label": "Neighbors" },
      step("ArrowLeft", "←", "Previous feature"), step("ArrowRight", "→", "Next feature"),
      step("ArrowUp", `↑ ${INDEX.layers[at + 1]?.name}`, "Layer above"),
      step("ArrowDown", `↓ ${INDEX.layers[at - 1]?.name}`, "Layer below")));
}

// The nine patches, their projections, and a ranked list. Pointing at one marks it in all three.
function strongestImages(layer, slot, item, names) {
  const selection = el("p", { class: "selection", role: "status" });
  const marked = []; // [rank, element]
  const select = (n) => {
    for (const [rank, node] of marked) node.classList.toggle("chosen", rank === n);
    selection.replaceChildren(...describeImage(item, names, n));
  };
  const events = (n) =>
    ({ click: () => select(n), focus: () => select(n), pointerenter: () => select(n) });
  const kindOf = (n) => kindName(names.kind[item.image[n]]);
  const nine = (kind, text) => {
    const tiles = item.value.map((_, n) => {
      const label = `${n + 1}. ${kindOf(n)}, ${kind}`;
      const node = tile(label, "button", { type: "button", ...events(n) });
      strongest(node, layer, slot, kind, n);
      marked.push([n, node]);
      return node;
    });
    const caption = el("figcaption", {}, text);
    return el("figure", { "data-kind": kind }, caption, el("div", { class: "nine" }, tiles));
  };
  const figures = {
    patches: nine("patches", `Patches: ${layer.field} × ${layer.field} pixels`),
    projections: nine("projections", "Projections to pixels"),
  };
  const show = (view) => {
    state.view = view;
    for (const [kind, figure] of Object.entries(figures))
      figure.hidden = view !== "both" && view !== kind;
  };
  show(state.view);
  const ranks = item.value.map((value, n) => {
    const row = el("li", events(n), `${kindOf(n)} `, el("small", {}, number(value, 4)));
    marked.push([n, row]);
    return row;
  });
  select(0);
  const views = [["both", "both"], ["patches", "patches"], ["projections", "projections"]];
  const isFirst = layer === INDEX.layers[0];
  return [
    el("div", { class: "bar" }, choice("Show", views, state.view, show),
      el("span", { class: "soft" }, kbd("p"), " switches; ", kbd("←"), " ", kbd("→"),
        " features, ", kbd("↑"), " ", kbd("↓"), " layers")),
    el("div", { class: "pair-of-nines" }, figures.patches, figures.projections,
      isFirst ? el("figure", { class: "filter" }, el("figcaption", {}, "Filter"),
        cover(layer, slot, "filters")) : null,
      el("div", { class: "ranks" }, el("ol", {}, ranks), selection)),
  ];
}

function describeImage(item, names, n) {
  const i = item.image[n], kind = names.kind[i];
  const output = kind >= 0 ? INDEX.outputs[kind] : -1;
  const isWrong = output >= 0 && names.predicted[i] !== output;
  const [row, column] = item.position[n];
  return [
    `${n + 1}. `, kind >= 0 ? kindLink(kind) : "no class",
    ...(isWrong ? [", predicted: ", classLink(names.predicted[i])] : []), el("br"),
    `activation ${number(item.value[n], 4)} at row ${row}, column ${column} `, el("br"),
    el("small", {}, names.name[i]),
  ];
}

// ------------------------------------------------------------------------------------- cards

function statisticsCard(layer, data, item) {
  const total = item.histogram.reduce((a, b) => a + b, 0);
  const ordinal = { 2: "second", 3: "third" }[data.step] || `${data.step}th`;
  const positions = data.step > 1 ? `at every ${ordinal} row and column` : "at all positions";
  const rows = [
    ["zero at", `${percent(item.zero)} of positions`],
    ["silent in", `${percent(item.silent)} of images`],
    ["strongest", item.value.length ? number(item.value[0], 4) : "–"],
    ["selectivity", number(item.selectivity, 3)],
    ["receptive field", `${layer.field} × ${layer.field} pixels, stride ${layer.stride}`],
  ];
  return card("Activations", `Histogram of the activations above zero, over all images and`
    + ` ${positions}. The axis is logarithmic, and areas are shares.`,
    "reproduce/site/atlas/tables.py",
    total ? histogram(item.histogram, total) : null,
    el("dl", {}, rows.map(([name, text]) => [el("dt", {}, name), el("dd", {}, text)])));
}

// Areas are shares, since bins of half an octave differ in width on a logarithmic axis.
function histogram(counts, total) {
  const first = counts.findIndex((n) => n > 0);
  const last = counts.length - [...counts].reverse().findIndex((n) => n > 0);
  const edges = INDEX.edges.slice(first, last + 1).map(Math.log2), bins = edges.length - 1;
  const x = (v) => 5 + (320 * (v - edges[0])) / (edges[bins] - edges[0]);
  const density = edges.slice(1).map((edge, i) => counts[first + i] / (edge - edges[i]));
  const highest = Math.max(...density);
  const drawing = svg("svg", {
    class: "histogram", viewBox: "0 0 330 122", role: "img",
    "aria-label": "Histogram of the activations above zero",
  });
  density.forEach((value, i) => {
    const height = (95 * value) / highest;
    const width = Math.max(x(edges[i + 1]) - x(edges[i]) - 1, 0.5);
    const [low, high] = [edges[i], edges[i + 1]].map((v) => number(2 ** v));
    const title = `${low} to ${high}: ${percent(counts[first + i] / total)}`;
    drawing.append(svg("rect", { x: x(edges[i]), y: 102 - height, width, height },
      svg("title", {}, title)));
  });
  drawing.append(svg("line", { x1: 5, x2: 325, y1: 102.5, y2: 102.5 }));
  const octaves = Math.floor(edges[bins]) - Math.ceil(edges[0]);
  const every = Math.max(1, Math.ceil(octaves / 6));
  for (let v = Math.floor(edges[bins]); x(v) >= 20; v -= every) { // labels, from the right
    drawing.append(svg("text", { x: Math.min(x(v), 312), y: 117, "text-anchor": "middle" },
      number(2 ** v, 2)));
  }
  return drawing;
}

function classesCard(name, item) {
  const rows = item.classes.map(([kind, lift, error]) => {
    const text = `× ${number(lift, 3)}${error ? ` ± ${number(error, 2)}` : ""}`;
    return [link(`${name}?class=${kind}`, INDEX.kinds[kind]), lift, text, error];
  });
  return card("Classes", "Mean response to a class's images divided by the mean response to all"
    + " images, with its standard error. A response is the largest activation in an image. A name"
    + " leads to the features with the strongest response to that class.",
    "reproduce/site/atlas/summary.py", bars(rows));
}

function similarCard(layer, item) {
  const tiles = item.similar.map(([feature, r]) => coverLink(layer, slotOf(layer, feature),
    "patches", el("span", {}, String(feature)), " ", el("small", {}, `r = ${number(r, 2)}`)));
  return card("Similar features", "Features of the same layer whose responses correlate most with"
    + " those of this feature, over all images.", "reproduce/site/atlas/summary.py",
    el("ul", { class: "grid small-tiles" }, tiles));
}

// Only in atlases that were written with --canonical.
function canonicalCard(page) {
  const drawn = (INDEX.canonical || {})[page];
  if (!drawn) return null;
  const probability =
    drawn.probability === undefined ? "" : `, probability ${percent(drawn.probability)}`;
  return card("Canonical image", "Gradient ascent from noise maximizes the activation. The result"
    + " is not an image of the data.", "reproduce/site/atlas/canonical.py",
    el("img", { class: "canonical", src: drawn.file, alt: "The image from gradient ascent" }),
    el("small", {}, `activation ${number(drawn.value)}${probability}`));
}
