// The page: log in, open, list, decrypt, save.
import * as api from "./api";
import { packageID, proofOf, storedKeycode } from "./keycode";
import type { Item } from "./manifest";
import { fileName } from "./names";
import { DamagedError, openHead, openItem, type Unsealed } from "./unseal";
import { confirmInfected, element, type Row, say, show, showAccount, showLoginError, showNotice, showPackage } from "./view";

const id = packageID(location.pathname);

/** Shows where things stand, from the start. */
async function start(): Promise<void> {
  show(null);
  say("Loading…");
  try {
    const { authenticated, agent } = await api.session();
    showAccount(authenticated ? agent : null);
    if (id === null) home(authenticated);
    else await openPackage(id, authenticated);
  } catch (error) {
    failed(error);
  }
}

function home(authenticated: boolean): void {
  const text = "Sealpost keeps the attachments of support mails encrypted. They open from the Secure Link in the Case.";
  showNotice(authenticated ? "You are logged in" : "Sealpost", text, null, null);
}

async function openPackage(id: string, authenticated: boolean): Promise<void> {
  const keycode = storedKeycode(id, sessionStorage);
  if (keycode === null) {
    showNotice(
      "This link is incomplete",
      "The part after the # is missing or was cut, and without it nothing can be decrypted. Copy the whole link from the mail and open it again.",
      id,
      null,
    );
    return;
  }
  if (!authenticated) {
    show("login");
    return;
  }
  say("Opening…");
  const opened = await api.open(id, await proofOf(keycode, id));
  const unsealed = await openHead(opened.head, id, opened.serverSecret, keycode);
  const grant = new Grant(id, keycode, opened);
  const { created, items } = unsealed.manifest;
  const { scan } = opened;
  showPackage(created, items, scan, async (item, row) => {
    if (scan?.infected === true && !(await confirmInfected(item, scan))) return;
    await download(item, row, unsealed, grant);
  });
}

/** The right to fetch objects, renewed once when it has run out. */
class Grant {
  constructor(
    readonly id: string,
    readonly keycode: string,
    private opened: api.Opened,
  ) {}

  async object(name: string): Promise<Awaited<ReturnType<typeof api.object>>> {
    try {
      return await api.object(this.id, name, this.opened);
    } catch (error) {
      if (!(error instanceof api.ApiError) || error.code !== "not_found") throw error;
    }
    this.opened = await api.open(this.id, await proofOf(this.keycode, this.id));
    return api.object(this.id, name, this.opened);
  }
}

async function download(item: Item, row: Row, unsealed: Unsealed, grant: Grant): Promise<void> {
  row.begin();
  try {
    const file = await openItem(
      item,
      unsealed.sessionKey,
      (name) => grant.object(name),
      (bytes) => {
        row.advance(bytes);
      },
    );
    save(file, fileName(item.name));
    row.end("Decrypted and handed to your downloads.", false);
  } catch (error) {
    if (await sessionEnded(error)) {
      show("login");
      showLoginError("Your session has ended. Log in again.");
      return;
    }
    row.end(`${rowWords(error)} Nothing was saved.`, true);
  }
}

/** What a failure is called beside one file, while the others may be well. */
function rowWords(error: unknown): string {
  if (error instanceof DamagedError) {
    return "This file is not what was sealed: it was damaged or altered in storage. Tell your administrator.";
  }
  if (error instanceof api.ApiError && error.code === "not_found") return "This file cannot be found.";
  const { title, text } = words(error);
  return `${title}. ${text}`;
}

async function sessionEnded(error: unknown): Promise<boolean> {
  if (!(error instanceof api.ApiError) || error.code !== "not_found") return false;
  try {
    const { authenticated } = await api.session();
    if (!authenticated) showAccount(null);
    return !authenticated;
  } catch {
    return false;
  }
}

function save(file: Blob, name: string): void {
  const url = URL.createObjectURL(file);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  // The download reads the Blob after this; a minute is ample to begin it.
  setTimeout(() => {
    URL.revokeObjectURL(url);
  }, 60_000);
}

interface Words {
  title: string;
  text: string;
  retry: boolean;
}

/** What each failure is called. */
function words(error: unknown): Words {
  if (error instanceof DamagedError) {
    return {
      title: "These files cannot be opened",
      text: "What is stored was damaged or altered, or the link was changed. Tell your administrator.",
      retry: true,
    };
  }
  if (!(error instanceof api.ApiError)) {
    return { title: "Something went wrong", text: "The page met an unexpected fault.", retry: true };
  }
  switch (error.code) {
    case "expired":
      return { title: "These files have expired", text: "Their time of keeping is over, and they are gone for good.", retry: false };
    case "revoked":
      return { title: "These files were withdrawn", text: "Access to them has been revoked.", retry: false };
    case "forbidden":
      return { title: "You may not open these files", text: "Your account has no right to them. Ask your administrator.", retry: false };
    case "arriving":
      return { title: "These files are still arriving", text: "They are being stored. Try again in a moment.", retry: true };
    case "not_found":
      return {
        title: "This link opens nothing",
        text: "It may have been changed on its way, or what it led to is gone. Copy the whole link from the mail and try again.",
        retry: false,
      };
    case "offline":
      return { title: "The server cannot be reached", text: "Check your connection, then try again.", retry: true };
  }
  return { title: "The server cannot do this now", text: error.message, retry: true };
}

function failed(error: unknown): void {
  const { title, text, retry } = words(error);
  showNotice(title, text, id, retry ? () => void start() : null);
}

async function submit(form: HTMLFormElement): Promise<void> {
  const agent = element("agent", HTMLInputElement);
  const password = element("password", HTMLInputElement);
  const button = element("login-submit", HTMLButtonElement);
  showLoginError(null);
  button.disabled = true;
  try {
    await api.login(agent.value, password.value);
  } catch (error) {
    showLoginError(error instanceof api.ApiError ? error.message : words(error).text);
    password.value = "";
    password.focus();
    return;
  } finally {
    button.disabled = false;
  }
  form.reset();
  await start();
}

async function logout(): Promise<void> {
  try {
    await api.logout();
  } catch (error) {
    failed(error);
    return;
  }
  element("files", HTMLElement).replaceChildren();
  await start();
}

element("login-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  void submit(event.currentTarget as HTMLFormElement);
});
element("logout", HTMLButtonElement).addEventListener("click", () => void logout());
void start();
