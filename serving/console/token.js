/** The access token: asked for when the service requires one, kept until the tab is closed. */

import { $ } from "./dom.js";

const NAME = "firstplay-token";
let asking = null;

/** The token in use, "" for none. */
export const token = () => sessionStorage.getItem(NAME) ?? "";

/** Waits for a token other than the refused one; true if there is. The user is asked once for all waiting requests. */
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
  box.returnValue = "cancel"; // the value after Escape
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

/** Sets up the button that changes the token and reloads the page. */
export function setUpToken() {
  $("#token").addEventListener("click", async () => {
    if (await dialog("It goes with every question to the service.")) location.reload();
  });
}
