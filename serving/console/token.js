/** The access token: asked for when the service wants one, forgotten with the tab. */

import { $ } from "./dom.js";

const NAME = "firstplay-token";
let asking = null;

/** The token in use, "" for none. */
export const token = () => sessionStorage.getItem(NAME) ?? "";

/** True once there is another token than the refused one: of the person, who is asked once for all waiting requests. */
export async function newToken(refused) {
  if (token() !== refused) return true;
  asking ??= dialog(refused ? "The service does not accept this token." : "The service asks for an access token.");
  const given = await asking;
  asking = null;
  return given;
}

/** Opens the dialog; true if a token was given. */
function dialog(why) {
  const box = $("#token-dialog");
  const field = $("input", box);
  $("#token-why").textContent = why;
  field.value = "";
  box.returnValue = "cancel"; // what Escape leaves
  box.showModal();
  return new Promise((resolve) => {
    box.addEventListener(
      "close",
      () => {
        const given = box.returnValue === "use" && field.value !== "";
        if (given) sessionStorage.setItem(NAME, field.value.trim());
        field.value = "";
        resolve(given);
      },
      { once: true },
    );
  });
}

/** The button that changes the token; the page begins anew with it. */
export function setUpToken() {
  $("#token").addEventListener("click", async () => {
    if (await dialog("It goes with every question to the service.")) location.reload();
  });
}
