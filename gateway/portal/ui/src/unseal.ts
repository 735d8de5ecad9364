// Opening what was sealed: OpenPGP messages with AES-256-GCM (RFC 9580), by openpgp.js.
import { decrypt, decryptSessionKeys, readMessage, type SessionKey } from "openpgp";
import { type Bytes, fromHex, sha256 } from "./encoding";
import { type Item, type Manifest, parseManifest, type Segment } from "./manifest";

/** Something is not what was sealed. Nothing of it may be used. */
export class DamagedError extends Error {
  override readonly name = "DamagedError";
}

export interface Unsealed {
  manifest: Manifest;
  sessionKey: SessionKey;
}

// openpgp's types ask for the name of the cipher, which a session key for SEIPD v2 carries as null.
type FoundKey = Awaited<ReturnType<typeof decryptSessionKeys>>[number];

async function openMessage(binary: Bytes, sessionKey: SessionKey): Promise<Bytes> {
  const message = await readMessage({ binaryMessage: binary });
  const opened = (await decrypt({ message, sessionKeys: sessionKey, format: "binary" })) as { data: Uint8Array };
  return new Uint8Array(opened.data);
}

/** Opens a head with both halves of its secret. A DamagedError when it does not open or does not parse. */
export async function openHead(head: Bytes, id: string, serverSecret: string, keycode: string): Promise<Unsealed> {
  try {
    const message = await readMessage({ binaryMessage: head });
    const keys: FoundKey[] = await decryptSessionKeys({ message, passwords: [serverSecret + keycode] });
    const sessionKey = keys[0] as SessionKey | undefined;
    if (keys.length !== 1 || sessionKey === undefined) throw new Error("not one session key");
    const manifest = new TextDecoder("utf-8", { fatal: true }).decode(await openMessage(head, sessionKey));
    return { manifest: parseManifest(manifest, id), sessionKey };
  } catch (cause) {
    throw new DamagedError("The list of files cannot be opened.", { cause });
  }
}

/** Checks and opens one segment: as it is stored, then what comes out of it. */
export async function openSegment(stored: Bytes, segment: Segment, sessionKey: SessionKey): Promise<Bytes> {
  if (stored.length !== segment.storedSize || (await sha256(stored)) !== segment.storedSha256) {
    throw new DamagedError("A stored part of the file is not the one that was sealed.");
  }
  let plain: Bytes;
  try {
    plain = await openMessage(stored, sessionKey);
  } catch (cause) {
    throw new DamagedError("A part of the file cannot be opened.", { cause });
  }
  if (plain.length !== segment.size || (await sha256(plain)) !== segment.sha256) {
    throw new DamagedError("A part of the file is not the one that was sealed.");
  }
  return plain;
}

/**
 * Opens an item into a Blob, one segment at a time; fetchObject gets each. Either the whole file comes
 * back, with every digest agreeing, or an error.
 */
export async function openItem(
  item: Item,
  sessionKey: SessionKey,
  fetchObject: (name: string) => Promise<Bytes>,
  progress: (bytes: number) => void,
): Promise<Blob> {
  const parts: Blob[] = [];
  let done = 0;
  for (const segment of item.segments) {
    const plain = await openSegment(await fetchObject(segment.object), segment, sessionKey);
    parts.push(new Blob([plain])); // the browser may keep it on its own disk
    done += plain.length;
    progress(done);
  }
  const digests = fromHex(item.segments.map((segment) => segment.sha256).join(""));
  if (done !== item.size || (await sha256(digests)) !== item.sha256) {
    throw new DamagedError("The file is not the one that was sealed.");
  }
  return new Blob(parts, { type: "application/octet-stream" });
}
