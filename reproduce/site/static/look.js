// ------------------------------------------------------------------------------------- one image

async function lookHome() {
  const data = await load("image");
  const predictions = LOOK.prediction.map(([c, p, logit]) =>
    [className(c), p, `${percent(p)}, logit ${number(logit, 3)}`]);
  const attribution = ({ name, file, caption }) => el("figure", {},
    el("figcaption", {}, name.replaceAll("_", " ")), el("img", { src: file, alt: caption }),
    el("small", {}, caption));
  return [
    el("h1", {}, LOOK.name),
    explanation("The five most probable classes.", "reproduce/site/atlas/look.py"),
    el("div", { class: "card" }, bars(predictions)),
    sectionTitle("Cover part of the image and see what changes"),
    occlusionLab(data, "demos", "image"),
    sectionTitle(`Evidence for ${className(data.target)}`),
    explanation("Attribution maps of the class's logit, each on its own scale.",
      "reproduce/site/atlas/look.py"),
    el("div", { class: "pictures" }, LOOK.attributions.map(attribution)),
    el("p", { class: "section" }, "Strongest features by layer: ",
      INDEX.layers.map((layer) => [link(layer.name, layer.name), " "])),
  ];
}

async function lookLayer(name) {
  const layer = layerOf(name), data = await load(name);
  const neighbors = LOOK.atlas
    ? ` Beside each are its strongest images in the atlas of ${LOOK.atlas}.` : "";
  return [
    el("h1", {}, `${name}: strongest features`),
    explanation(`The ${data.features.length} of ${layer.maps} maps with the strongest response to`
      + ` this image: the patch in the receptive field and its projection.${neighbors}`,
      "reproduce/site/atlas/look.py"),
    LOOK.atlas ? null : el("p", {}, LOOK.reason),
    data.features.map((feature, f) => imageFeature(name, feature, f, data.features.length)),
  ];
}

// A feature of the image: its patch, its projection, and its strongest images in the atlas.
function imageFeature(name, feature, f, total) {
  const own = (kind, column) => el("figure", {}, el("figcaption", {}, kind),
    place(tile(`this image's ${kind}`), `sheets/${name}-own.webp`, column, f, 2, total));
  const nine = (kind) => el("div", { class: "nine" },
    Array.from({ length: feature.neighbors }, (_, rank) =>
      placeNth(tile(`${rank + 1}. neighbor, ${kind}`), `sheets/${name}-${kind}.webp`, f, rank,
        total)));
  const [row, column] = feature.position;
  let beside = null;
  if (feature.neighbors) {
    const caption = "strongest images in the atlas, and their projections";
    beside = [el("figcaption", {}, caption), nine("patches"), nine("projections")];
  } else if (LOOK.atlas) {
    beside = el("p", { class: "soft" }, "The atlas has no pictures of this feature.");
  }
  return el("section", { class: "image-feature" },
    el("p", {}, el("strong", {}, `feature ${feature.number}`),
      ` activation ${number(feature.value, 4)} at row ${row}, column ${column}`),
    own("patch", 0), own("projection", 1), el("div", { class: "neighbors" }, beside));
}
