/** Opting out: a button by which a user is named no more, or may be named again, once it is confirmed. */

import { tell } from "./api.js";
import { $, make, say, words } from "./dom.js";
import { trouble } from "./panel.js";

const OUT = {
  name: "Opt out",
  asks: "Opt this user out?",
  means: "will be in no audience and no picture, and get no new songs, from now on. Plays are taken as before.",
  told: "has opted out",
};
const IN = {
  name: "Opt in again",
  asks: "Opt this user in again?",
  means: "may be named in audiences and pictures again, and get new songs. Do so only if they have agreed.",
  told: "has opted in again",
};

/** A button that opts a user out, or in again where they are `out`; calls `onChange(out)` when it is done. */
export function optOut(user, out, onChange) {
  const change = out ? IN : OUT;
  const answer = make("div", { class: "answer" });
  async function click() {
    if (!(await confirmed(user, change))) return;
    answer.replaceChildren();
    try {
      await tell("opt-outs", { user_ids: [user], opted_out: !out });
      onChange(!out);
      say(`${user} ${change.told}`);
    } catch (error) {
      answer.replaceChildren(trouble(error));
    }
  }
  const button = make("button", { type: "button", class: "quiet", onclick: click }, change.name);
  return make("div", { class: "feedback" }, button, answer);
}

/** Asks in a dialog; true if it is confirmed. */
function confirmed(user, { name, asks, means }) {
  const box = $("#out-dialog");
  $("#out-h").textContent = asks;
  $("#out-means").replaceChildren(words(user), ` ${means}`);
  $("[value=yes]", box).textContent = name;
  box.returnValue = "cancel"; // the value after Escape
  box.showModal();
  return new Promise((resolve) => {
    box.addEventListener("close", () => resolve(box.returnValue === "yes"), { once: true });
  });
}
