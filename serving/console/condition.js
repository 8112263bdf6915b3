/** Fields for a condition on users or songs; why the service refuses one stands below its field. */

import { $, say } from "./dom.js";

export const UNREAD = "Nothing is shown until the condition can be read.";

/** Sets up a field, with an example (or null), beside the note that describes it. `onChange()` follows each new
 *  condition. Returns `value()` (null without one) and `read(answer)`: the answer to a request with the condition, null
 *  where the condition is refused. */
export function setUpCondition(field, example, onChange) {
  field.placeholder = example ?? "";
  const note = $(`#${field.getAttribute("aria-describedby")}`);
  const value = () => field.value.trim() || null;
  function wrong(why) {
    note.hidden = !why;
    note.textContent = why;
    field.setAttribute("aria-invalid", String(why !== ""));
    if (why) say(why);
  }
  async function read(answer) {
    wrong("");
    try {
      return await answer;
    } catch (error) {
      if (error.status !== 422 || value() === null) throw error;
      wrong(error.message);
      return null;
    }
  }
  field.addEventListener("change", onChange); // half a condition is none
  field.form.addEventListener("submit", (event) => event.preventDefault());
  return { value, read };
}
