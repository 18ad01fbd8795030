import { send } from "../lib/api.js";
import { filePath } from "../lib/files.js";
import { html } from "../lib/html.js";
import { plainLine } from "../lib/text.js";
import { useEffect, useState } from "../vendor/hooks.js";

/** A picture among the files: it is fetched with the token. @param {{id: string, path: string, version: string}} props */
export function Picture({ id, path, version }) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    const ending = new AbortController();
    let made = "";
    send(filePath(id, path), { signal: ending.signal })
      .then((answer) => answer.blob())
      .then((content) => {
        made = URL.createObjectURL(content);
        setUrl(made);
      })
      .catch(() => {}); // it is in the list of files, and can be tried there
    return () => {
      ending.abort();
      URL.revokeObjectURL(made);
    };
  }, [id, path, version]);
  const name = plainLine(path);
  return html`<figure>${url && html`<img src=${url} alt=${name.split("/").at(-1)?.replaceAll("_", " ")} />`}<figcaption class="soft">${name}</figcaption></figure>`;
}
