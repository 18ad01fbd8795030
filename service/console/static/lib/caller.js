/** Whom the server takes us for, and what that allows. */

import { useEffect } from "../vendor/hooks.js";
import { signal } from "../vendor/signals.js";
import { get } from "./api.js";
import { token } from "./session.js";

/** @typedef {{name: string, role: string, token_id: string | null}} Caller */

export const caller = signal(/** @type {Caller | null} */ (null));

export function useWhoami() {
  useEffect(() => {
    caller.value = null;
    get("/v1/whoami").then(
      (answer) => {
        caller.value = answer;
      },
      () => {}, // a 401 asks for a token; anything else is told by the page, which asks again
    );
  }, [token.value]);
}

/**
 * Whether the caller may change what this owner has. The server decides; this only leaves out buttons that it refuses.
 * @param {string} owner
 */
export function mayChange(owner) {
  const { name, role } = caller.value ?? { name: "", role: "user" };
  return role === "admin" || (role === "user" && (name === owner || name === ""));
}

export function mayWrite() {
  return caller.value?.role !== "viewer";
}
