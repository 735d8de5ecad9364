// Runs in the head, before the rest of the page and its large script are even loaded.
import { takeKeycode } from "./keycode";

takeKeycode(location, history, sessionStorage);

// A second link to the same package, opened in this tab, changes nothing but the fragment.
addEventListener("hashchange", () => {
  if (takeKeycode(location, history, sessionStorage)) location.reload();
});
