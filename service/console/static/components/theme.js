/** The colours of the page, for what is drawn on a canvas. */

import { useEffect, useState } from "../vendor/hooks.js";

/** @typedef {{paper: string, ink: string, soft: string, rule: string, lines: string[]}} Theme */

const LINES = 6;

/** @returns {Theme} */
function read() {
  const style = getComputedStyle(document.documentElement);
  const color = (/** @type {string} */ name) => style.getPropertyValue(name).trim();
  const lines = Array.from({ length: LINES }, (_, index) => color(`--line-${index + 1}`));
  return { paper: color("--paper"), ink: color("--ink"), soft: color("--soft"), rule: color("--rule"), lines };
}

/** The colours as they are now: another object once the reader prefers dark or light. */
export function useTheme() {
  const [theme, setTheme] = useState(read);
  useEffect(() => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const changed = () => setTheme(read());
    dark.addEventListener("change", changed);
    return () => dark.removeEventListener("change", changed);
  }, []);
  return theme;
}
