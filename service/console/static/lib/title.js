import { useEffect } from "../vendor/hooks.js";
import { plainLine } from "./text.js";

/**
 * The title of the tab.
 * @param {string | undefined} name
 */
export function useTitle(name) {
  useEffect(() => {
    document.title = name ? `${plainLine(name)} · cbam-lab` : "cbam-lab";
  }, [name]);
}
