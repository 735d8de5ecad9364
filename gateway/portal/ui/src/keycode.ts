// The keycode K: half of the secret, which a link carries in its fragment and no server ever sees.
import { fromBase64Url, fromHex, toBase64Url } from "./encoding";

/** The 32 hex digits of /p/ID, or null on any other page. */
export function packageID(pathname: string): string | null {
  return /^\/p\/([0-9a-f]{32})$/.exec(pathname)?.[1] ?? null;
}

/** Whether text is base64url of exactly 32 bytes, in its one canonical spelling. */
export function isKeycode(text: string): boolean {
  if (!/^[A-Za-z0-9_-]{43}$/.test(text)) return false;
  const bytes = fromBase64Url(text);
  return bytes.length === 32 && toBase64Url(bytes) === text;
}

/**
 * Moves a keycode out of the address into the tab's own storage. The address is cleared whether or not the
 * fragment is a keycode, before anything else can read, send or show it. Returns whether one was taken.
 */
export function takeKeycode(location: Location, history: History, storage: Storage): boolean {
  const fragment = location.hash.slice(1);
  if (fragment === "") return false;
  history.replaceState(null, "", location.pathname);
  const id = packageID(location.pathname);
  if (id === null || !isKeycode(fragment)) return false;
  storage.setItem(id, fragment);
  return true;
}

/** The keycode that was kept for a package, or null. */
export function storedKeycode(id: string, storage: Storage): string | null {
  const keycode = storage.getItem(id);
  return keycode !== null && isKeycode(keycode) ? keycode : null;
}

/** HKDF-SHA256(K, salt = the raw bytes of ID, info = "sealpost/1 proof"), base64url. */
export async function proofOf(keycode: string, id: string): Promise<string> {
  const key = await crypto.subtle.importKey("raw", fromBase64Url(keycode), "HKDF", false, ["deriveBits"]);
  const info = new TextEncoder().encode("sealpost/1 proof");
  const params = { name: "HKDF", hash: "SHA-256", salt: fromHex(id), info };
  return toBase64Url(new Uint8Array(await crypto.subtle.deriveBits(params, key, 256)));
}
