// ------------------------------------------------------------------------------------- search

// The outputs whose name contains a text, or that belong to a group: "dog" gives every breed.
function matchingClasses(text) {
  const group = new Set((INDEX.groups || {})[text] || []);
  return INDEX.classes.map((_, c) => c)
    .filter((c) => className(c).toLowerCase().includes(text) || group.has(c));
}

// A feature by its address: conv5/25, conv5 25 or conv5:25. Null where the text is no address.
function matchingFeature(text) {
  const [, name, digits] = text.match(/^([a-z]+\d+)[\s/:#]+(\d+)$/) || [];
  const layer = name && layerOf(name), feature = Number(digits);
  if (!layer) return null;
  if (layer.numbers.includes(feature))
    return link(`${name}/${feature}`, `${name} feature ${feature}`);
  const [first, last] = [layer.numbers[0], layer.numbers[layer.numbers.length - 1]];
  const reason = `${name} has no feature ${digits} in this atlas; available: ${first} to ${last}`;
  return el("span", { class: "soft" }, reason);
}

// A search box. A class leads to a layer's features sorted by their response to it, or to its own
// page where the atlas has no images of it. The address of a feature leads to its page.
function search(layer) {
  const hits = el("ul", {});
  const type = () => {
    const typed = input.value.trim().toLowerCase();
    const feature = matchingFeature(typed);
    if (feature) hits.replaceChildren(el("li", {}, feature));
    else hits.replaceChildren(...(typed ? classHits(layer, typed) : []));
  };
  const go = (event) => {
    event.preventDefault();
    const first = hits.querySelector("a");
    if (first) location.hash = first.getAttribute("href");
  };
  const input = el("input", {
    type: "search", "aria-label": "Find a class or a feature",
    placeholder: "A class, or a feature such as conv5/17", autocomplete: "off", input: type,
  });
  return el("form", { class: "find", role: "search", submit: go }, input, hits);
}

// How well a class answers a text: by its name, a word of it, its group, or a part of a word.
function ranking(text) {
  const word = new RegExp(`\\b${text.replace(/[^a-z0-9]/g, "\\$&")}\\b`, "i");
  const group = new Set((INDEX.groups || {})[text] || []);
  return (name, output) => {
    if (name.toLowerCase() === text) return 0;
    return word.test(name) ? 1 : group.has(output) ? 2 : 3;
  };
}

const MAX_HITS = 8;
function classHits(layer, typed) {
  const text = typed.replace(/s$/, ""); // plural
  const classes = matchingClasses(text), matching = new Set(classes);
  const rank = ranking(text);
  const kinds = INDEX.kinds.map((name, kind) => ({ name, kind, output: INDEX.outputs[kind] }))
    .filter(({ name, output }) => name.toLowerCase().includes(text) || matching.has(output));
  kinds.sort((a, b) => rank(a.name, a.output) - rank(b.name, b.output) || a.kind - b.kind);
  const items = kinds.slice(0, MAX_HITS).map(({ name, kind }) =>
    el("li", {}, link(`${layer.name}?class=${kind}`, name)));

  const withImages = new Set(INDEX.outputs);
  const others = classes.filter((c) => !withImages.has(c));
  others.sort((a, b) => rank(className(a), a) - rank(className(b), b) || a - b);
  if (others.length) {
    const size = count(others.length, "class", "classes");
    items.push(el("li", { class: "soft" }, `${size} without images in this atlas:`));
    const room = Math.max(1, MAX_HITS - items.length);
    items.push(...others.slice(0, room).map((c) =>
      el("li", {}, done("classes") ? link(`class/${c}`, className(c)) : className(c))));
    if (others.length > room) {
      const more = `and ${others.length - room} more`;
      items.push(el("li", {}, link(`classes?find=${encodeURIComponent(text)}`, more)));
    }
  }
  if (items.length) return items;
  const example = `${layer.name}/${layer.numbers[0]}`;
  return [el("li", { class: "soft" }, `No class matches "${typed}". Type a class, a group such as `
    + `dog, or a feature such as ${example}.`)];
}
