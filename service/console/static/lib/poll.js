/** Ask again and again while a page is shown. */

import { useCallback, useEffect, useRef, useState } from "../vendor/hooks.js";
import { token } from "./session.js";

const SLOWEST_MS = 15_000;

/**
 * What `load` gives, asked for anew every `seconds` (0: once) while the page is in view, and at `reload()`.
 * After an error the last data stay, and it is tried again, more and more seldom.
 * @template T
 * @param {(signal: AbortSignal) => Promise<T>} load
 * @param {unknown[]} inputs what it depends on: when they change, the data are forgotten
 * @param {number} seconds
 * @returns {{data: T | undefined, error: Error | undefined, reload: () => void}}
 */
export function usePoll(load, inputs, seconds = 2) {
  const [state, setState] = useState(/** @type {{data?: T, error?: Error}} */ ({}));
  const again = useRef(() => {});
  const period = useRef(seconds);
  period.current = seconds;
  useEffect(() => {
    const ending = new AbortController();
    let timer = 0;
    let failures = 0;
    let running = false;
    setState({});
    const next = () => {
      clearTimeout(timer);
      if (ending.signal.aborted || document.hidden || (period.current === 0 && failures === 0)) return;
      timer = window.setTimeout(look, Math.min(SLOWEST_MS, (period.current || 2) * 1000 * 2 ** Math.min(failures, 4)));
    };
    const look = async () => {
      if (running) return;
      running = true;
      try {
        const data = await load(ending.signal);
        failures = 0;
        if (!ending.signal.aborted) setState({ data });
      } catch (error) {
        failures += 1;
        if (!ending.signal.aborted) setState((old) => ({ ...old, error: /** @type {Error} */ (error) }));
      } finally {
        running = false;
      }
      next();
    };
    again.current = look;
    const shown = () => !document.hidden && look();
    document.addEventListener("visibilitychange", shown);
    look();
    return () => {
      ending.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
    };
  }, [...inputs, token.value]);
  return { data: state.data, error: state.error, reload: useCallback(() => again.current(), []) };
}
