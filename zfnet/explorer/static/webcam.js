// The webcam, at the rate that the network manages: a frame is sent when the previous one is answered.

import { send } from "./api.js";
import { el, notice } from "./dom.js";

const SIDE = 256; // pixels; the network takes the central 224 of them
let running = null;

export const isRunning = () => running !== null;

export function stopWebcam() {
  if (!running) return;
  running.media.getTracks().forEach((track) => track.stop());
  const { stopped } = running;
  running = null;
  stopped();
}

export async function startWebcam({ started, stopped, frame }) {
  let media;
  try {
    media = await navigator.mediaDevices.getUserMedia({ video: { width: 640, height: 480 } });
  } catch (error) {
    return notice(`no webcam: ${error.message || error.name}`);
  }
  const mine = running = { media, stopped };
  started();
  const video = el("video", { muted: true, playsinline: true });
  video.srcObject = media;
  await video.play();
  const canvas = el("canvas", { width: SIDE, height: SIDE }), times = [];
  while (running === mine) {
    const blob = await grab(video, canvas);
    try {
      const answer = await send("frame", {}, { method: "POST", body: blob });
      if (running !== mine) return;
      times.push(performance.now());
      if (times.length > 10) times.shift();
      const span = times[times.length - 1] - times[0];
      if (answer) frame(answer, span ? (1000 * (times.length - 1)) / span : 0);
    } catch (error) {
      notice(error.message);
      stopWebcam();
    }
    await new Promise(requestAnimationFrame);
  }
}

// The central square of the video as a JPEG.
function grab(video, canvas) {
  const side = Math.min(video.videoWidth, video.videoHeight);
  const left = (video.videoWidth - side) / 2, top = (video.videoHeight - side) / 2;
  canvas.getContext("2d").drawImage(video, left, top, side, side, 0, 0, SIDE, SIDE);
  return new Promise((resolve) => { canvas.toBlob(resolve, "image/jpeg", 0.92); });
}
