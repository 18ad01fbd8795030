/** Specs as text, and what differs between two. */

/** @typedef {{path: string, before: unknown, after: unknown}} Difference */

/**
 * The leaves of a spec by their dotted paths.
 * @param {unknown} value
 * @param {string} [path]
 * @returns {[string, unknown][]}
 */
export function leaves(value, path = "") {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return [[path, value]];
  const entries = Object.entries(value);
  if (entries.length === 0 && path) return [[path, value]];
  return entries.flatMap(([key, inner]) => leaves(inner, path ? `${path}.${key}` : key));
}

/**
 * @param {unknown} before
 * @param {unknown} after
 * @returns {Difference[]}
 */
export function differences(before, after) {
  const [old, now] = [new Map(leaves(before)), new Map(leaves(after))];
  const paths = [...new Set([...old.keys(), ...now.keys()])].sort();
  return paths
    .filter((path) => JSON.stringify(old.get(path)) !== JSON.stringify(now.get(path)))
    .map((path) => ({ path, before: old.get(path), after: now.get(path) }));
}

/** A leaf in words. @param {unknown} value */
export function leaf(value) {
  return value === undefined ? "–" : typeof value === "string" ? value : JSON.stringify(value);
}

/**
 * Changes as they are typed, `train.epochs = 3` in each line, as the API takes them. Raises where a line is none.
 * @param {string} text
 * @returns {Record<string, unknown>}
 */
export function overrides(text) {
  /** @type {Record<string, unknown>} */
  const found = {};
  for (const line of text
    .split("\n")
    .map((one) => one.trim())
    .filter(Boolean)) {
    const at = line.indexOf("=");
    const path = line.slice(0, at).trim();
    if (at < 1 || !path) throw new Error(`"${line}": write it as path = value, for example train.epochs = 3`);
    found[path] = typed(line.slice(at + 1).trim());
  }
  return found;
}

/** @param {string} text */
function typed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}
