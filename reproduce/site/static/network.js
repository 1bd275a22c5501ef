// ------------------------------------------------------------------------------------- network

// The layers as boxes, as in Fig. 3. A box's edge grows with the square root of the map's side,
// its depth with the logarithm of the number of maps.
function drawMap() {
  const layers = INDEX.map.filter(({ name }) => /^(conv|fc)/.test(name));
  const input = { name: "input", operation: "an image", shape: [3, INDEX.side, INDEX.side] };
  const last = layers[layers.length - 1].name;
  for (const layer of [input, ...layers]) {
    const { name, operation, shape } = layer;
    const [maps, side] = shape.length > 1 ? shape : [shape[0], 0];
    const text = side
      ? [`${side} × ${side}`, name === "input" ? "pixels" : `${maps} maps`]
      : [name === last ? "classes" : "units", String(maps)];
    const route = routeOf(name, last);
    const title = `${operation}: ${text.join(", ")}`;
    const drawing = svg("svg", { viewBox: "0 0 64 64", "aria-hidden": "true" }, boxes(maps, side));
    const inside = [
      drawing, el("b", {}, name), el("small", {}, text[0]), el("small", {}, text[1]),
    ];
    const attributes = { class: side ? "" : "dense", title, "data-route": route };
    document.getElementById("map").append(
      route === undefined
        ? el("span", { ...attributes, title: `${title}; no page` }, inside)
        : el("a", { ...attributes, href: `#/${route}` }, inside));
  }
}

function routeOf(name, last) {
  if (layerOf(name)) return name;
  if (LOOK) return name === "input" ? "" : undefined;
  if (name === "input") return "images";
  return name === last ? "classes" : undefined;
}

// A stack of maps, or a bar for a dense layer (side 0).
function boxes(maps, side) {
  const edge = side ? 44 * Math.sqrt(side / INDEX.side) : 30;
  const depth = side ? 1.7 * Math.log2(maps) : 0;
  const width = side ? edge * 0.62 : 6;
  return (side ? [1, 0.66, 0.33, 0] : [0]).map((shift) => svg("rect", {
    x: 32 - (width + depth) / 2 + shift * depth,
    y: 32 - edge / 2 - shift * depth * 0.55 + depth * 0.27,
    width, height: edge, rx: 0.8,
  }));
}

// Mark the current page, and keep the chosen class in the links to layers.
function markMap(name, query) {
  const current = PARTS[name] || name;
  const chosen = query.has("class") ? `?class=${query.get("class")}` : "";
  for (const box of document.querySelectorAll("#map [data-route]")) {
    const route = box.dataset.route;
    if (route === current) box.setAttribute("aria-current", "page");
    else box.removeAttribute("aria-current");
    if (layerOf(route)) box.setAttribute("href", `#/${route}${chosen}`);
  }
}
