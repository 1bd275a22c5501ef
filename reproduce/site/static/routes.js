// ------------------------------------------------------------------------------------- routes

// The address as [path, query]: #/conv5/17?sort=number.
function parse() {
  let address = location.hash;
  try {
    address = decodeURI(address);
  } catch { /* malformed escapes lead to no page */ }
  const [path, query] = address.replace(/^#\/?/, "").split("?");
  return [path.split("/").filter(Boolean), new URLSearchParams(query || "")];
}

// The page that an arrow key leads to: the next feature, or the same place in the next layer.
function neighbor(key, name, feature) {
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
  if (!other || !done(other.name)) return null;
  return `${other.name}/${other.numbers[Math.min(slot, other.numbers.length - 1)]}`;
}

// The content of a page. Throws an error that says why there is none.
function page(path, query) {
  const [name, second] = path;
  if (name === undefined) return LOOK ? lookHome() : home();
  if (layerOf(name)) {
    if (!done(name)) throw new Error(`${name} is not finished yet`);
    if (LOOK) return lookLayer(name);
    if (second === undefined) return layerPage(name, query);
    if (!/^\d+$/.test(second)) throw new Error(`${second} is not a feature of ${name}`);
    return featurePage(name, Number(second));
  }
  const pages = new Map([
    ["classes", () => classList(query)], ["class", () => classPage(Number(second))],
    ["images", images], ["image", () => imagePage(Number(second))],
  ]);
  if (!pages.has(name) || LOOK) throw new Error(`there is no page ${path.join("/")}`);
  if (!done(PARTS[name])) throw new Error(`the ${PARTS[name]} are not finished yet`);
  return pages.get(name)();
}

let lastRequest = 0;
async function show() {
  const request = ++lastRequest, view = document.getElementById("view");
  const [path, query] = parse();
  markMap(path[0] ?? (LOOK ? "" : undefined), query);
  let content;
  try {
    content = await page(path, query);
  } catch (error) {
    content = [
      el("h1", {}, "Page not found"),
      el("p", {}, `${error.message}. `, link("", "Back to the start"), "."),
    ];
  }
  if (request !== lastRequest) return; // another page was requested meanwhile
  const focused = view.contains(document.activeElement) ? document.activeElement.id : null;
  view.replaceChildren();
  set(view, {}, content);
  // Keep the keyboard's place on the page.
  if (focused !== null) (document.getElementById(focused) || view).focus({ preventScroll: true });
  const site = LOOK ? "a look inside" : `atlas of ${INDEX.network}`;
  document.title = `${view.querySelector("h1").textContent} – ${site}`;
  view.dataset.route = path.join("/"); // tests wait for it
}

// ------------------------------------------------------------------------------------- keys

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest("input, select, textarea, [role=application]")) return;
  const [[name, second]] = parse();
  if (!layerOf(name) || !done(name)) return;
  const feature = LOOK || second === undefined ? null : Number(second);
  if (event.key === "p" && feature !== null) {
    const view = state.view === "patches" ? "projections" : "patches";
    const button = document.querySelector(`.choice [data-value=${view}]`);
    if (button) button.click();
  }
  const scrolls = feature === null && /Up|Down/.test(event.key); // on the grid of a layer
  if (!/^Arrow/.test(event.key) || scrolls) return;
  const target = neighbor(event.key, name, feature);
  event.preventDefault();
  if (target) location.hash = `#/${target}`;
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash names a page, not a position
  document.getElementById("view").focus();
});
window.addEventListener("hashchange", () => { window.scrollTo(0, 0); show(); });

// ------------------------------------------------------------------------------------- frame

function drawFrame() {
  const [brand, subtitle] = document.querySelector(".brand").children;
  brand.textContent = LOOK ? "A look inside" : "The atlas";
  subtitle.textContent = LOOK
    ? `${LOOK.name}, network ${INDEX.network}`
    : `network ${INDEX.network}, ${corpusSize()} (${INDEX.corpus})`;
  const unfinished = document.getElementById("unfinished");
  unfinished.hidden = !INDEX.missing.length;
  unfinished.textContent = `This atlas is not finished; missing: ${INDEX.missing.join(", ")}. `
    + "The same command continues it.";
  const command = LOOK ? "python -m reproduce look IMAGE" : "python -m reproduce atlas";
  const hash = (value) => el("code", { title: value }, value.slice(0, 12));
  document.querySelector("footer").append(el("p", {}, "Written by ", el("code", {}, command),
    ": network ", hash(INDEX.checkpoint),
    INDEX.data ? [", images ", hash(INDEX.data)] : "", "."));
}

drawFrame();
drawMap();
show();
