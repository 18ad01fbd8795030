import { html } from "../lib/html.js";
import { useEffect, useRef } from "../vendor/hooks.js";
import { signal } from "../vendor/signals.js";

/** @typedef {{title: string, text: string, action: string, answer: (yes: boolean) => void}} Question */

const question = signal(/** @type {Question | null} */ (null));

/**
 * Ask before something that cannot be taken back.
 * @param {{title: string, text: string, action: string}} words
 * @returns {Promise<boolean>}
 */
export function confirmed(words) {
  return new Promise((resolve) => {
    question.value = { ...words, answer: resolve };
  });
}

export function Confirm() {
  const dialog = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const asked = question.value;
  useEffect(() => {
    if (asked) dialog.current?.showModal();
  }, [asked]);
  if (!asked) return null;
  const answer = (/** @type {boolean} */ yes) => {
    dialog.current?.close();
    question.value = null;
    asked.answer(yes);
  };
  const escaped = (/** @type {Event} */ event) => {
    event.preventDefault();
    answer(false);
  };
  return html`
    <dialog ref=${dialog} aria-labelledby="confirm-title" aria-describedby="confirm-text" onCancel=${escaped}>
      <h2 id="confirm-title">${asked.title}</h2>
      <p id="confirm-text">${asked.text}</p>
      <div class="buttons">
        <button type="button" onClick=${() => answer(false)}>Back</button>
        <button type="button" class="danger" onClick=${() => answer(true)}>${asked.action}</button>
      </div>
    </dialog>
  `;
}
