// What the page shows. Everything is set as text; nothing becomes markup.
import type { Scan } from "./api";
import type { Item } from "./manifest";
import { displayName, displaySize } from "./names";

type Section = "login" | "package" | "notice";

export function element<T extends HTMLElement>(id: string, kind: new () => T): T {
  const found = document.getElementById(id);
  if (!(found instanceof kind)) throw new Error(`the page lacks #${id}`);
  return found;
}

/** Shows one section, or none, and moves the focus to its title, where a screen reader goes on. */
export function show(section: Section | null): void {
  for (const id of ["login", "package", "notice"]) element(id, HTMLElement).hidden = id !== section;
  say("");
  if (section === "login") element("agent", HTMLInputElement).focus();
  else if (section !== null) element(`${section}-title`, HTMLElement).focus();
}

/** Announces what is going on. */
export function say(text: string): void {
  element("status", HTMLElement).textContent = text;
}

export function showAccount(agent: string | null): void {
  element("account", HTMLElement).hidden = agent === null;
  element("who", HTMLElement).textContent = agent ?? "";
}

export function showLoginError(text: string | null): void {
  const line = element("login-error", HTMLElement);
  line.textContent = text ?? "";
  line.hidden = text === null;
}

/** Shows a state in words. id is what to tell an administrator; retry is what "Try again" does. */
export function showNotice(title: string, text: string, id: string | null, retry: (() => void) | null): void {
  element("notice-title", HTMLElement).textContent = title;
  element("notice-text", HTMLElement).textContent = text;
  const line = element("notice-package", HTMLElement);
  line.hidden = id === null;
  line.textContent = id === null ? "" : `Package ${id}`;
  const button = element("notice-retry", HTMLButtonElement);
  button.hidden = retry === null;
  button.onclick = retry;
  show("notice");
}

export function showPackage(
  created: Date,
  items: Item[],
  scan: Scan | null,
  download: (item: Item, row: Row) => Promise<void>,
): void {
  const count = items.length === 1 ? "1 file" : `${items.length} files`;
  const when = created.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
  element("package-about", HTMLElement).textContent = `${count}, received ${when}`;
  const rows = items.map((item) => {
    const row = new Row(item);
    row.onDownload(() => download(item, row));
    return row.node;
  });
  element("files", HTMLElement).replaceChildren(...rows);
  show("package");
  showScan(scan);
}

/** Warns above the files. An alert is announced when it comes to stand in what shows already. */
function showScan(scan: Scan | null): void {
  const banner = element("scan", HTMLElement);
  banner.hidden = scan === null;
  banner.classList.toggle("infected", scan?.infected === true);
  banner.setAttribute("role", scan?.infected === true ? "alert" : "note");
  let title = "";
  let text = "";
  if (scan?.infected === true) {
    title = "A virus was found in this mail";
    text = `The virus scanner reports ${finding(scan)}. Its files can harm your computer. Do not open them unless you know what you are doing.`;
  } else if (scan !== null) {
    title = "Not scanned for viruses";
    text = "No virus scanner has looked at these files. Open them only if you expect them from this sender.";
  }
  element("scan-title", HTMLElement).textContent = title;
  element("scan-text", HTMLElement).textContent = text;
}

function finding(scan: Scan): string {
  return scan.signature === "" ? "a virus" : displayName(scan.signature);
}

/** Asks whether an item is wanted all the same. Escape, and whatever closes the question otherwise, means no. */
export function confirmInfected(item: Item, scan: Scan): Promise<boolean> {
  const dialog = element("confirm", HTMLDialogElement);
  element("confirm-text", HTMLElement).textContent =
    `The virus scanner reports ${finding(scan)} in the mail that ${displayName(item.name)} came with. It can harm your computer.`;
  element("confirm-no", HTMLButtonElement).onclick = () => {
    dialog.close("no");
  };
  element("confirm-yes", HTMLButtonElement).onclick = () => {
    dialog.close("yes");
  };
  dialog.returnValue = "no";
  return new Promise((resolve) => {
    dialog.onclose = () => {
      resolve(dialog.returnValue === "yes");
    };
    dialog.showModal();
  });
}

/** One file of the list, with its button, its progress and its message. */
export class Row {
  readonly node = document.createElement("li");
  readonly #button = document.createElement("button");
  readonly #progress = document.createElement("progress");
  readonly #message = document.createElement("p");

  constructor(item: Item) {
    const shown = displayName(item.name);
    const name = document.createElement("bdi");
    name.className = "name";
    name.textContent = shown;
    const size = document.createElement("span");
    size.className = "size";
    size.textContent = displaySize(item.size);
    this.#button.type = "button";
    this.#button.textContent = "Download";
    this.#button.setAttribute("aria-label", `Download ${shown}`);
    this.#progress.max = Math.max(item.size, 1);
    this.#progress.value = 0;
    this.#progress.hidden = true;
    this.#progress.setAttribute("aria-label", `Progress of ${shown}`);
    this.#message.className = "message";
    this.#message.setAttribute("role", "status");
    this.node.append(name, size, this.#button, this.#progress, this.#message);
  }

  onDownload(start: () => Promise<void>): void {
    this.#button.addEventListener("click", () => {
      if (this.#button.getAttribute("aria-disabled") === "true") return;
      void start();
    });
  }

  /** The button keeps the focus while it is out of use. */
  begin(): void {
    this.#button.setAttribute("aria-disabled", "true");
    this.#progress.value = 0;
    this.#progress.hidden = false;
    this.#message.classList.remove("error");
    this.#message.textContent = "Decrypting…";
  }

  advance(bytes: number): void {
    this.#progress.value = bytes;
  }

  end(text: string, failed: boolean): void {
    this.#button.removeAttribute("aria-disabled");
    this.#progress.hidden = true;
    this.#message.classList.toggle("error", failed);
    this.#message.textContent = text;
  }
}
