/* Takes a photo with the camera of a computer or a phone. */

import { find, make } from "./elements.js";

/** Show the camera's picture; return a photo, or null if nobody takes one. */
export async function takePhoto() {
  const video = find("video");
  const wanted = { video: { facingMode: "environment" } };
  const stream = await navigator.mediaDevices.getUserMedia(wanted);
  const dialog = find("camera");
  try {
    video.srcObject = stream;
    dialog.returnValue = "";
    dialog.showModal();
    await new Promise((resolve) => dialog.addEventListener("close", resolve, { once: true }));
    if (dialog.returnValue !== "shoot" || !video.videoWidth) return null;
    const canvas = make("canvas", { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    return new File([blob], "photo.jpg", { type: blob.type });
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  }
}

/** Say whether the file chooser opens the camera itself, or this page cannot open one. */
export function usesFileChooser() {
  // Browsers offer cameras only over HTTPS and on localhost.
  return matchMedia("(pointer: coarse)").matches || !navigator.mediaDevices?.getUserMedia;
}
