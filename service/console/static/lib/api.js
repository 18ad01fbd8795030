/** Requests to /v1 with the token as a bearer header, and what went wrong with one in words. */

import { reachable, refusal, token } from "./session.js";

/** The server's root: also below the prefix of a proxy. */
const ROOT = new URL("../../", import.meta.url);

/** What the server refused, as RFC 9457 has it, or that it did not answer (status 0). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {{title?: string, detail?: string, errors?: {pointer?: string, detail?: string}[]}} problem
   */
  constructor(status, problem) {
    super(problem.detail || problem.title || `the server answered ${status}`);
    this.status = status;
    this.errors = problem.errors ?? [];
  }
}

/** @typedef {{method?: string, body?: unknown, headers?: Record<string, string>, signal?: AbortSignal}} Options */

/**
 * A path below the server's root as an address.
 * @param {string} path
 */
export function address(path) {
  return new URL(path.replace(/^\//, ""), ROOT).href;
}

/**
 * Raises ApiError; a 401 has the page ask for a token.
 * @param {string} path
 * @param {Options} [options]
 */
export async function send(path, { method = "GET", body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (token.value) sent.Authorization = `Bearer ${token.value}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  /** @type {Response} */
  let answer;
  try {
    answer = await fetch(address(path), {
      method,
      signal,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    reachable.value = false;
    throw new ApiError(0, { detail: "the server does not answer" });
  }
  reachable.value = true;
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  if (answer.status === 401) refusal.value = problem.detail || "This server asks for a token.";
  throw new ApiError(answer.status, problem);
}

/**
 * @param {string} path
 * @param {Options} [options]
 * @returns {Promise<any>}
 */
export async function get(path, options) {
  return (await send(path, options)).json();
}

/**
 * @param {string} path
 * @param {unknown} [body]
 * @param {string} [method]
 * @returns {Promise<any>}
 */
export async function change(path, body, method = "POST") {
  const answer = await send(path, { method, body });
  return answer.status === 204 ? null : answer.json();
}
