// What the reader chose. It is in the address, so that a page can be shared and reloaded.

const DEFAULTS = {
  image: "", view: "features", layer: "", unit: null, at: null, method: "deconvnet", switches: 1, collision: "sum",
  normalization: 0, target: null, box: null, size: 48, left: "grad_cam", right: "saliency", pins: [],
};
const READERS = {
  unit: whole, target: whole, size: whole, switches: whole, normalization: whole,
  at: (text) => numbers(text, 2), box: (text) => numbers(text, 4),
  pins: (text) => text.split(";").filter(Boolean).map(parsePin).filter(Boolean),
};
const WRITERS = { at: (at) => at.join(","), box: (box) => box.join(","), pins: (pins) => pins.map(pinName).join(";") };

export const state = structuredClone(DEFAULTS);
export const network = {}; // what the server says about the network; filled before anything is drawn
const listeners = [];
const WRITE_AFTER = 150; // milliseconds: browsers refuse frequent changes of the address
let writing = 0;

function whole(text) { return /^\d{1,6}$/.test(text) ? Number(text) : null; }
function numbers(text, count) {
  const values = text.split(",").map(whole);
  return values.length === count && !values.includes(null) ? values : null;
}

export const unitName = (layer, unit) => `${layer}/${unit}`;
export const pinName = ({ layer, unit, at }) => `${layer}/${unit}@${at.join(",")}`;
export function parsePin(text) {
  const [, layer, unit, at] = /^(.+)\/(\d{1,6})@(\d+,\d+)$/.exec(text) || [];
  return layer ? { layer, unit: Number(unit), at: numbers(at, 2) } : null;
}
export const layerOf = (name) => network.layers.find((layer) => layer.name === name);

// Change the state, write it into the address, and tell who listens to these names.
export function update(changes) {
  const names = Object.keys(changes).filter((name) => JSON.stringify(state[name]) !== JSON.stringify(changes[name]));
  if (!names.length) return;
  for (const name of names) state[name] = changes[name];
  clearTimeout(writing);
  writing = setTimeout(() => history.replaceState(null, "", `#${hash()}`), WRITE_AFTER);
  for (const [wanted, listener] of listeners) if (wanted.some((name) => names.includes(name))) listener(names);
}

// Call a function when one of these names changes.
export function on(names, listener) { listeners.push([names, listener]); }

export function hash() {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) {
    if (JSON.stringify(value) === JSON.stringify(DEFAULTS[name]) || value === null) continue;
    query.set(name, WRITERS[name] ? WRITERS[name](value) : value);
  }
  return query.toString().replaceAll("%2F", "/").replaceAll("%2C", ",").replaceAll("%40", "@").replaceAll("%3B", ";");
}

// The state of the address; unknown names and damaged values are left out.
export function readHash() {
  const read = {};
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (!(name in DEFAULTS)) continue;
    const value = READERS[name] ? READERS[name](text) : text.slice(0, 80);
    if (value !== null) read[name] = value;
  }
  return { ...structuredClone(DEFAULTS), ...read };
}

export const rules = () => ({ method: state.method, switches: state.switches, collision: state.collision, normalization: state.normalization });
export const isPaper = () => state.method === "deconvnet" && state.switches && state.collision === "sum" && !state.normalization;

// Tell the listeners that a value is new though its name is not, as with the next frame of a webcam.
export function refresh(name) {
  for (const [wanted, listener] of listeners) if (wanted.includes(name)) listener([name]);
}
