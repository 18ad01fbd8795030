/** Where the console is, in the part of the address behind #: `#/experiments?state=RUNNING`. It survives a reload. */

import { signal } from "../vendor/signals.js";

const HOME = "experiments";

/** @typedef {{path: string[], query: URLSearchParams}} Route */

/**
 * @param {string} hash
 * @returns {Route}
 */
export function parseRoute(hash) {
  const [path, query] = hash.replace(/^#\/?/, "").split("?", 2);
  const words = path.split("/").filter(Boolean).map(decoded);
  return { path: words.length > 0 ? words : [HOME], query: new URLSearchParams(query ?? "") };
}

/**
 * @param {string[]} path
 * @param {URLSearchParams} [query]
 */
export function toHash(path, query) {
  const words = query?.toString() ?? "";
  return `#/${path.map(encodeURIComponent).join("/")}${words && `?${words}`}`;
}

/**
 * A query with some parameters replaced; an empty value takes one away. Lists stand several times.
 * @param {URLSearchParams} query
 * @param {Record<string, string | string[] | null>} changes
 */
export function withQuery(query, changes) {
  const next = new URLSearchParams(query);
  for (const [name, value] of Object.entries(changes)) {
    next.delete(name);
    for (const one of [value].flat()) if (one) next.append(name, one);
  }
  return next;
}

export const route = signal(/** @type {Route} */ ({ path: [], query: new URLSearchParams() }));

/** Follow the address from now on. */
export function startRouting() {
  const read = () => {
    route.value = parseRoute(location.hash);
  };
  addEventListener("hashchange", read);
  read();
}

/**
 * Change the query of the page without a new entry in the history.
 * @param {URLSearchParams} query
 */
export function setQuery(query) {
  history.replaceState(null, "", toHash(route.value.path, query));
  route.value = { ...route.value, query };
}

/** @param {string} word */
function decoded(word) {
  try {
    return decodeURIComponent(word);
  } catch {
    return word;
  }
}
