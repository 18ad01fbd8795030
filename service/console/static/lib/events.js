/** The changes of state of an experiment, as they happen. */

import { useEffect, useState } from "../vendor/hooks.js";
import { follow } from "./sse.js";

/**
 * @param {string} id
 * @param {boolean | undefined} live whether more may happen: the stream of an ended one is read once
 * @param {() => void} moved called at each change
 */
export function useEvents(id, live, moved) {
  const [events, setEvents] = useState(/** @type {import("../types.js").Event[]} */ ([]));
  const [state, setState] = useState(/** @type {"live" | "reconnecting"} */ ("live"));
  useEffect(() => {
    const ending = new AbortController();
    const seen = new Map();
    const onEvent = (/** @type {import("./sse-parser.js").SentEvent} */ { type, data }) => {
      if (type === "move") {
        const event = JSON.parse(data);
        seen.set(event.seq, event);
        setEvents([...seen.values()]);
      }
      moved();
    };
    follow(`/v1/experiments/${id}/events/stream`, { signal: ending.signal, onEvent, onState: setState }).catch(
      () => {},
    );
    return () => ending.abort();
  }, [id, live]);
  return { events, state };
}
