// ------------------------------------------------------------------------------------- classes

async function classList(query) {
  const data = await load("classes");
  const list = el("ul", { class: "list" });
  const labeled = data.classes.some((item) => item.images);
  const score = (c) => {
    const item = data.classes[c];
    return labeled ? (item.images ? item.correct / item.images : -1) : item.predicted;
  };
  const text = ({ images, correct, predicted }) =>
    (images ? `${correct} of ${images}` : `predicted ${count(predicted, "time")}`);
  const without = (c) => !data.classes[c].images; // listed last
  const byScore = (sign) => (a, b) =>
    without(a) - without(b) || sign * (score(a) - score(b)) || a - b;
  const byName = (a, b) => className(a).localeCompare(className(b), "en", { numeric: true });
  const fill = () => {
    const order = matchingClasses(input.value.trim().toLowerCase());
    order.sort(state.classes === "name" ? byName : byScore(state.classes === "best" ? -1 : 1));
    list.replaceChildren(...order.map((c) =>
      el("li", {}, classLink(c), el("small", {}, text(data.classes[c])))));
  };
  const input = el("input", {
    type: "search", placeholder: "Find a class", "aria-label": "Find a class",
    value: query.get("find") || "", input: fill,
  });
  fill();
  const orders = [["name", "name"], ["best", labeled ? "best first" : "most first"],
    ["worst", labeled ? "worst first" : "fewest first"]];
  const choose = (value) => { state.classes = value; fill(); };
  return [
    el("h1", {}, count(INDEX.classes.length, "class", "classes")),
    explanation(labeled
      ? "The classes of the network, and how many images of each it predicts correctly."
      : "The classes of the network, and how often it predicts each. These images have no labels.",
      "reproduce/site/atlas/summary.py"),
    el("div", { class: "bar" }, input, choice("Sorted by", orders, state.classes, choose)),
    list,
  ];
}

async function classPage(c) {
  const [data, names] = await Promise.all([load("classes"), load("names")]);
  const item = data.classes[c];
  if (!item) throw new Error(`the network has no output ${c}`);
  const kind = INDEX.outputs.indexOf(c);
  return [
    el("h1", {}, className(c)),
    explanation(`The ${item.top.length} images with the highest logit${onePerPhotograph()}, of any label:`
      + " the logit and the label.", "reproduce/site/atlas/summary.py"),
    el("ul", { class: "grid" }, item.top.map((i, n) => thumbnail(data, names, i, item.logit[n]))),
    el("div", { class: "cards" },
      accuracyCard(item),
      item.drive ? evidenceCard(item) : null,
      canonicalCard(`class/${c}`),
      kind >= 0 ? card("Which features respond to it?",
        "The features of a layer, sorted by their response to this class relative to all images.",
        "reproduce/site/atlas/summary.py",
        el("p", {}, INDEX.layers.map(({ name }) => [link(`${name}?class=${kind}`, name), " "])))
        : null),
  ];
}

function thumbnail(data, names, image, logit) {
  const columns = INDEX.thumbnails, perSheet = columns ** 2;
  const at = data.shown.indexOf(image), sheet = Math.floor(at / perSheet);
  const rows = Math.ceil(Math.min(perSheet, data.shown.length - sheet * perSheet) / columns);
  const label = kindName(names.kind[image]);
  const node = place(tile(label), `sheets/images-${sheet}.webp`, at % columns,
    Math.floor((at % perSheet) / columns), columns, rows);
  const caption = el("small", {}, `${number(logit, 3)} · ${label}`);
  return el("li", { title: names.name[image] }, node, caption);
}

function accuracyCard(item) {
  const total = item.images
    ? `${item.correct} of ${item.images} correct: ${percent(item.correct / item.images)}`
    : `predicted for ${count(item.predicted, "image")}`;
  return card("Predictions", item.images
    ? "How many images of the class are predicted correctly, and what the others are predicted as."
    : "No image in this atlas has this label.", "reproduce/site/atlas/summary.py",
    el("p", { class: "large" }, total),
    item.confused.length
      ? bars(item.confused.map(([c, n]) => [classLink(c), n, String(n)])) : null);
}

function evidenceCard(item) {
  const last = INDEX.layers[INDEX.layers.length - 1];
  const tiles = item.drive.map(([feature, share]) => {
    const slot = last.numbers.indexOf(feature);
    const text = [el("span", {}, String(feature)), " ", el("small", {}, `+${number(share, 2)}`)];
    return slot >= 0 && done(last.name)
      ? coverLink(last, slot, "patches", ...text)
      : el("li", {}, el("span", { class: "tile" }), ...text);
  });
  return card("Evidence for its logit", `Gradient times activation of each ${last.name} map, summed`
    + ` over positions; mean over ${count(item.drive_images, "image")}. The mean logit is`
    + ` ${number(item.mean)}, biases included.`, "reproduce/site/atlas/tables.py",
    el("ul", { class: "grid small-tiles" }, tiles));
}
