import assert from "node:assert/strict";
import { test } from "node:test";
import { ApiError, parseScan } from "./api";
import { fromHex, toBase64Url } from "./encoding";
import { isKeycode, packageID, proofOf, storedKeycode, takeKeycode } from "./keycode";
import { ManifestError, parseManifest } from "./manifest";
import { displayName, displaySize, fileName } from "./names";

const id = "000102030405060708090a0b0c0d0e0f";
const keycode = toBase64Url(Uint8Array.from({ length: 32 }, (_, i) => i));

class Memory implements Storage {
  readonly #values = new Map<string, string>();
  [name: string]: unknown;
  get length(): number {
    return this.#values.size;
  }
  clear(): void {
    this.#values.clear();
  }
  getItem(key: string): string | null {
    return this.#values.get(key) ?? null;
  }
  key(): null {
    return null;
  }
  removeItem(key: string): void {
    this.#values.delete(key);
  }
  setItem(key: string, value: string): void {
    this.#values.set(key, value);
  }
}

function take(pathname: string, hash: string): { storage: Memory; urls: string[]; taken: boolean } {
  const storage = new Memory();
  const urls: string[] = [];
  const history = { replaceState: (_: unknown, __: string, url: string) => urls.push(url) } as unknown as History;
  const taken = takeKeycode({ pathname, hash } as Location, history, storage);
  return { storage, urls, taken };
}

test("the keycode moves from the address to the tab's storage", () => {
  const { storage, urls, taken } = take(`/p/${id}`, `#${keycode}`);
  assert.equal(taken, true);
  assert.deepEqual(urls, [`/p/${id}`]);
  assert.equal(storedKeycode(id, storage), keycode);
});

test("a fragment that is no keycode is cleared and not kept", () => {
  for (const hash of [`#${keycode}x`, `#${keycode.slice(1)}`, "#a b", `#${keycode.slice(0, 42)}B`]) {
    const { storage, urls, taken } = take(`/p/${id}`, hash);
    assert.equal(taken, false, hash);
    assert.equal(urls.length, 1, hash);
    assert.equal(storage.length, 0, hash);
  }
});

test("without a fragment nothing is touched", () => {
  const { urls, taken } = take(`/p/${id}`, "");
  assert.equal(taken, false);
  assert.equal(urls.length, 0);
});

test("package IDs are 32 lower-case hex digits", () => {
  assert.equal(packageID(`/p/${id}`), id);
  for (const path of ["/", "/p/", `/p/${id}/`, `/p/${id.toUpperCase()}`, `/p/${id}0`]) assert.equal(packageID(path), null);
});

test("keycodes have one spelling", () => {
  assert.equal(isKeycode(keycode), true);
  assert.equal(isKeycode(`${keycode}=`), false);
});

test("a scan warns unless it is absent, and an unknown verdict is no clean one", () => {
  assert.equal(parseScan(undefined), null);
  assert.deepEqual(parseScan({ verdict: "infected", signature: "Eicar" }), { infected: true, signature: "Eicar" });
  assert.deepEqual(parseScan({ verdict: "unscanned" }), { infected: false, signature: "" });
  assert.deepEqual(parseScan({ verdict: "later" }), { infected: false, signature: "" });
  for (const value of [null, "clean", [], {}, { verdict: 1 }]) assert.throws(() => parseScan(value), ApiError);
});

test("the proof is HKDF-SHA256 with the raw ID as its salt", async () => {
  // Computed with Python's hmac module, extract and expand written out.
  assert.equal(await proofOf(keycode, id), "Yd2fD69Oe9sevFamhR2K2HhELvN43G6SbfhIOBaBPTU");
});

const digest = "ab".repeat(32);
const segment = { object: `20260102/${id}.s.0011223344556677`, size: 5, sha256: digest, stored_size: 60, stored_sha256: digest };
const item = { name: "a.txt", type: "text/plain", size: 5, crc32: "00000000", sha256: digest, segments: [segment] };
const manifest = { version: 1, package: id, created: "2026-01-02T03:04:05Z", source: "mail", items: [item], later: true };

test("a manifest is read, unknown fields and all", () => {
  const read = parseManifest(JSON.stringify(manifest), id);
  assert.equal(read.items[0]?.name, "a.txt");
  assert.equal(read.items[0].segments[0]?.storedSize, 60);
});

test("a manifest that is not exactly right is refused", () => {
  const bad: unknown[] = [
    null,
    [],
    { ...manifest, version: 2 },
    { ...manifest, version: "1" },
    { ...manifest, package: "ff".repeat(16) },
    { ...manifest, created: "yesterday" },
    { ...manifest, items: {} },
    { ...manifest, items: [{ ...item, size: 6 }] },
    { ...manifest, items: [{ ...item, name: 1 }] },
    { ...manifest, items: [{ ...item, sha256: digest.toUpperCase() }] },
    { ...manifest, items: [{ ...item, segments: [{ ...segment, object: "../../etc/passwd" }] }] },
    { ...manifest, items: [{ ...item, segments: [{ ...segment, object: segment.object.replace(id, "ff".repeat(16)) }] }] },
    { ...manifest, items: [{ ...item, segments: [{ ...segment, size: -5 }] }] },
    { ...manifest, items: [{ ...item, segments: [{ ...segment, stored_size: 2 ** 40 }] }] },
  ];
  for (const value of bad) assert.throws(() => parseManifest(JSON.stringify(value), id), ManifestError, JSON.stringify(value));
  assert.throws(() => parseManifest("{", id), ManifestError);
});

test("names cannot deceive", () => {
  const cases: [string, string, string][] = [
    ["report.pdf", "report.pdf", "report.pdf"],
    ["Größe 報告 🙂.txt", "Größe 報告 🙂.txt", "Größe 報告 🙂.txt"],
    ["invoice\u202Efdp.exe", "invoice\uFFFDfdp.exe", "invoice_fdp.exe"],
    ["a\u0000b\r\nc", "a\uFFFDb\uFFFD\uFFFDc", "a_b__c"],
    ["zero\u200Bwidth\u2066", "zero\uFFFDwidth\uFFFD", "zero_width_"],
    ["../../etc/passwd", "../../etc/passwd", "_.._etc_passwd"],
    ["C:\\x.bat", "C:\\x.bat", "C__x.bat"],
    [".htaccess", ".htaccess", "htaccess"],
    ["CON.txt", "CON.txt", "_CON.txt"],
    ["trailing. ", "trailing.", "trailing"],
    ["\uD800", "\uFFFD", "_"],
    ["  ", "unnamed", "unnamed"],
    ["", "unnamed", "unnamed"],
  ];
  for (const [name, shown, saved] of cases) {
    assert.equal(displayName(name), shown, JSON.stringify(name));
    assert.equal(fileName(name), saved, JSON.stringify(name));
  }
});

test("long names keep their extension and whole characters", () => {
  const saved = fileName(`${"é".repeat(300)}.docx`);
  assert.equal(new TextEncoder().encode(saved).length <= 200, true);
  assert.match(saved, /^é+\.docx$/);
});

test("sizes are for people", () => {
  assert.equal(displaySize(0), "0 bytes");
  assert.equal(displaySize(1), "1 byte");
  assert.equal(displaySize(999), "999 bytes");
  assert.equal(displaySize(1000), "1.0 kB");
  assert.equal(displaySize(1_000_000 - 1), "1.0 MB");
  assert.equal(displaySize(150_000_000), "150.0 MB");
});

test("hex is strict", () => {
  assert.deepEqual(fromHex("00ff"), Uint8Array.of(0, 255));
  assert.throws(() => fromHex("0"));
  assert.throws(() => fromHex("FF"));
});
