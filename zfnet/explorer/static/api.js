// Requests to the server. Of each kind one is under way; of those that come meanwhile only the newest is sent.

import { notice } from "./dom.js";

const TAB = Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const lanes = new Map();
const TYPES = { float32: Float32Array, uint8: Uint8Array };

export function address(kind, parameters) {
  const query = new URLSearchParams({ tab: TAB });
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== null && value !== undefined && value !== "") query.set(name, value);
  }
  return `api/${kind}?${query}`;
}

// Decode an answer of zfnet/explorer/wire.py: a header whose arrays become { data, shape } by name.
export function decode(buffer) {
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  let offset = 4 + length;
  for (const { name, dtype, shape } of header.arrays) {
    const count = shape.reduce((a, b) => a * b, 1);
    const data = new TYPES[dtype](buffer, offset, count);
    header[name] = { data, shape };
    offset += Math.ceil(data.byteLength / 8) * 8;
  }
  return header;
}

// Send a request; null where the server dropped it for a newer one. Throws an Error with the server's sentence.
export async function send(kind, parameters, options) {
  let answer;
  try {
    answer = await fetch(address(kind, parameters), options);
  } catch (error) {
    if (error.name === "AbortError") return null;
    throw new Error("the server does not answer: is `zfnet explore` still running?");
  }
  if (answer.status === 409) return null;
  if (answer.headers.get("content-type") === "application/octet-stream") return decode(await answer.arrayBuffer());
  const content = await answer.json().catch(() => ({ error: `the server answered ${answer.status}` }));
  if (!answer.ok) throw new Error(content.error);
  return content;
}

// Send the newest request of a lane once the one under way is answered. Resolves with null for those it replaces.
export function latest(kind, parameters, lane = kind) {
  if (parameters.image === "") return Promise.resolve(null); // no image is chosen yet
  const entry = lanes.get(lane) || { busy: false, next: null };
  lanes.set(lane, entry);
  return new Promise((resolve) => {
    if (entry.next) entry.next.resolve(null);
    entry.next = { kind, parameters: { lane, ...parameters }, resolve };
    if (!entry.busy) drain(entry);
  });
}

async function drain(entry) {
  entry.busy = true;
  while (entry.next) {
    const { kind, parameters, resolve } = entry.next;
    entry.next = null;
    let answer = null;
    try {
      answer = await send(kind, parameters);
    } catch (error) {
      notice(error.message);
    }
    resolve(answer);
  }
  entry.busy = false;
}

// Read the lines of a stream; `read` gets each line's JSON.
export async function stream(kind, parameters, read, signal) {
  const answer = await fetch(address(kind, parameters), { signal });
  if (!answer.ok) throw new Error((await answer.json()).error);
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    lines.forEach((line) => read(JSON.parse(line)));
  }
}
