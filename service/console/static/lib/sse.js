/** Server-Sent Events over fetch, which can send the token: they go on where they were cut. */

import { ApiError, send } from "./api.js";
import { eventParser } from "./sse-parser.js";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10_000;

/**
 * Follow a stream until its event `end`, until it is aborted, or until it is refused for good (raises ApiError).
 * @param {string} path
 * @param {{signal: AbortSignal, onEvent: (event: import("./sse-parser.js").SentEvent) => void,
 *   onState?: (state: "live" | "reconnecting") => void}} options
 */
export async function follow(path, { signal, onEvent, onState }) {
  let lastId = "";
  let wait = FIRST_WAIT_MS;
  while (!signal.aborted) {
    try {
      const answer = await send(path, { signal, headers: lastId ? { "Last-Event-ID": lastId } : {} });
      onState?.("live");
      wait = FIRST_WAIT_MS;
      for await (const event of events(answer)) {
        lastId = event.id || lastId;
        onEvent(event);
        if (event.type === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      const status = error instanceof ApiError ? error.status : 0;
      if (status >= 400 && status < 500 && status !== 429) throw error;
    }
    onState?.("reconnecting");
    await pause(wait, signal);
    wait = Math.min(LONGEST_WAIT_MS, wait * 2);
  }
}

/** @param {Response} answer */
async function* events(answer) {
  const parse = eventParser();
  const reader = /** @type {ReadableStream<Uint8Array>} */ (answer.body).getReader();
  const decoder = new TextDecoder();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield* parse(decoder.decode(value, { stream: true }));
  }
}

/**
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve(undefined);
    });
  });
}
