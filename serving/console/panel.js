/** Panels load and show content or an error; only the last request counts. */

import { $, count, debounced, make, say } from "./dom.js";

const HOPELESS = [413, 422]; // asking the same again cannot help

/** An error message, with a button to retry if that may help. */
export function trouble(error, again) {
  if (error.status === undefined) console.error(error); // a bug here, not an answer of the service
  const retry = again && !HOPELESS.includes(error.status) && make("button", { type: "button", onclick: again }, "Try again");
  return make("div", { class: "trouble", role: "alert" }, make("p", {}, error.message), retry);
}

/** Replaces the content by nodes, unless they are the content already, which keeps the focus. */
function put(body, nodes) {
  const same = nodes.length === body.childNodes.length && nodes.every((node, n) => node === body.childNodes[n]);
  if (!same) body.replaceChildren(...nodes);
}

/** A function `fill(ask, show, fresh)`: `ask(signal)` answers, `show(answer)` gives the nodes of the panel's body.
 *  `fresh` takes the old answer away at once, else it stays, dimmed, until the new one is there. */
export function panel(root) {
  const body = $(".body", root);
  let running = null;
  return async function fill(ask, show, fresh = false) {
    running?.abort();
    const mine = (running = new AbortController());
    if (fresh) body.replaceChildren(make("p", { class: "faint" }, "Asking the service…"));
    root.setAttribute("aria-busy", "true");
    try {
      const answer = await ask(mine.signal);
      if (mine === running) put(body, show(answer));
    } catch (error) {
      if (mine !== running) return;
      body.replaceChildren(trouble(error, () => fill(ask, show, true)));
    }
    if (mine === running) root.removeAttribute("aria-busy");
  };
}

/** A searched list: `ask(query, offset, signal)` answers {total, rows}, `entry(row)` gives what stands in its line. */
export function searched(root, ask, entry, noun) {
  const fill = panel(root);
  const box = $("input", root);
  const list = make("ul", { class: "list" });
  const told = make("p", { class: "faint" });
  const next = { type: "button", class: "quiet", onclick: () => load(list.children.length) };
  const more = make("button", next, "Show more");
  function load(offset) {
    const answered = (answer) => shown(answer, offset);
    fill((signal) => ask(box.value.trim(), offset, signal), answered);
  }
  function shown({ total, rows }, offset) {
    if (!offset) list.replaceChildren();
    list.append(...rows.map((row) => make("li", {}, entry(row))));
    told.textContent = total ? `${count(list.children.length)} of ${count(total)} ${noun}` : `No ${noun} found`;
    more.hidden = list.children.length >= total || !rows.length;
    say(told.textContent);
    return [list, told, more];
  }
  box.addEventListener("input", debounced(() => load(0)));
  return () => load(0);
}
