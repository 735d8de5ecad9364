// File names come from whoever sent the mail: they are shown and used only in a form that cannot deceive.

// Controls, bidirectional controls, invisible format characters, line separators, lone surrogates.
const deceptive = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu;

/** A name to show: what would reorder, hide or break text becomes a visible replacement character. */
export function displayName(name: string): string {
  const shown = name.replace(deceptive, "\uFFFD").trim();
  return shown === "" ? "unnamed" : shown;
}

/** A name to save under, without anything that a file system or a shell could take for more than a name. */
export function fileName(name: string): string {
  let safe = name
    .replace(deceptive, "_")
    .replace(/[/\\:*?"<>|]/g, "_")
    .replace(/^[\s.]+/, "")
    .replace(/[\s.]+$/, "");
  if (/^(con|prn|aux|nul|com\d|lpt\d)(\.|$)/i.test(safe)) safe = `_${safe}`;
  return safe === "" ? "unnamed" : shorten(safe, 200);
}

/** Cuts the stem, in whole characters, so that the UTF-8 form fits and the extension stays. */
function shorten(name: string, limit: number): string {
  const size = (text: string): number => new TextEncoder().encode(text).length;
  if (size(name) <= limit) return name;
  const dot = name.lastIndexOf(".");
  const extension = dot > 0 && size(name.slice(dot)) <= 20 ? name.slice(dot) : "";
  const stem = Array.from(name.slice(0, name.length - extension.length));
  while (size(stem.join("") + extension) > limit) stem.pop();
  return stem.join("") + extension;
}

/** A size for people: the units that the notice in the mail uses too. */
export function displaySize(bytes: number): string {
  const units = ["kB", "MB", "GB", "TB"];
  if (bytes < 1000) return bytes === 1 ? "1 byte" : `${bytes} bytes`;
  let value = bytes / 1000;
  let unit = 0;
  while (value >= 999.95 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${value.toFixed(1)} ${units[unit] ?? ""}`;
}
