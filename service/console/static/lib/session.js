/** The token, for as long as the tab is open, and whether the server answers. */

import { signal } from "../vendor/signals.js";

const KEY = "cbam-token";

export const token = signal(sessionStorage.getItem(KEY) ?? "");
/** Why a token is asked for; empty while none is. */
export const refusal = signal("");
/** Whether the last request reached the server. */
export const reachable = signal(true);

/** @param {string} secret */
export function useToken(secret) {
  sessionStorage.setItem(KEY, secret);
  token.value = secret;
  refusal.value = "";
}

export function forgetToken() {
  sessionStorage.removeItem(KEY);
  token.value = "";
  refusal.value = "The token is forgotten. Enter one to go on.";
}
