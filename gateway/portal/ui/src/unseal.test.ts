import assert from "node:assert/strict";
import { test } from "node:test";
import { createMessage, encrypt, enums, type SessionKey } from "openpgp";
import { type Bytes, fromHex, sha256 } from "./encoding";
import type { Item, Segment } from "./manifest";
import { DamagedError, openHead, openItem } from "./unseal";

const sessionKey: SessionKey = { data: new Uint8Array(32).fill(7), algorithm: "aes256", aeadAlgorithm: "gcm" };
const id = "000102030405060708090a0b0c0d0e0f";

async function seal(text: string, passphrase: string): Promise<Bytes> {
  const message = await createMessage({ binary: new TextEncoder().encode(text) });
  const config = { aeadProtect: true, preferredAEADAlgorithm: enums.aead.gcm };
  return new Uint8Array(await encrypt({ message, sessionKey, passwords: passphrase, format: "binary", config }));
}

async function segmentOf(stored: Bytes, text: string, object: string): Promise<Segment> {
  const plain = new TextEncoder().encode(text);
  return {
    object,
    size: plain.length,
    sha256: await sha256(plain),
    storedSize: stored.length,
    storedSha256: await sha256(stored),
  };
}

/** An item of two segments, "one" and "three", and its objects. */
async function sealed(): Promise<{ item: Item; objects: Map<string, Bytes> }> {
  const objects = new Map([
    ["a", await seal("one", "p")],
    ["b", await seal("three", "p")],
  ]);
  const segments = [
    await segmentOf(objects.get("a") ?? new Uint8Array(), "one", "a"),
    await segmentOf(objects.get("b") ?? new Uint8Array(), "three", "b"),
  ];
  const digest = await sha256(fromHex(segments.map((segment) => segment.sha256).join("")));
  return { item: { name: "n", type: "t", size: 8, sha256: digest, segments }, objects };
}

function opened(item: Item, objects: Map<string, Bytes>): Promise<Blob> {
  const fetchObject = (name: string): Promise<Bytes> => Promise.resolve(objects.get(name) ?? new Uint8Array());
  return openItem(item, sessionKey, fetchObject, () => undefined);
}

test("an item opens when everything agrees", async () => {
  const { item, objects } = await sealed();
  assert.equal(await (await opened(item, objects)).text(), "onethree");
});

const zero = "00".repeat(32);
const damages: [string, (item: Item, first: Segment, objects: Map<string, Bytes>) => Promise<void> | void][] = [
  ["the stored digest differs", (_, first) => { first.storedSha256 = zero; }],
  ["the stored size differs", (_, first) => { first.storedSize++; }],
  ["the size differs", (_, first) => { first.size++; }],
  ["the digest differs", (_, first) => { first.sha256 = zero; }],
  ["the item's digest differs", (item) => { item.sha256 = zero; }],
  ["the item's size differs", (item) => { item.size++; }],
  ["a segment is missing", (item) => { item.segments.pop(); }],
  ["the segments are swapped", (item) => { item.segments.reverse(); }],
  [
    "the ciphertext is altered and its digest with it",
    async (_, first, objects) => {
      const stored = Uint8Array.from(objects.get("a") ?? []);
      stored.set([(stored.at(-20) ?? 0) ^ 1], stored.length - 20);
      objects.set("a", stored);
      first.storedSha256 = await sha256(stored);
    },
  ],
  [
    "the ciphertext is cut and its digest with it",
    async (_, first, objects) => {
      const stored = (objects.get("a") ?? new Uint8Array()).slice(0, -16);
      objects.set("a", stored);
      first.storedSize = stored.length;
      first.storedSha256 = await sha256(stored);
    },
  ],
];
for (const [name, damage] of damages) {
  test(`an item does not open when ${name}`, async () => {
    const { item, objects } = await sealed();
    const first = item.segments[0];
    assert.ok(first);
    await damage(item, first, objects);
    await assert.rejects(opened(item, objects), DamagedError);
  });
}

test("a head opens with both halves of its secret only", async () => {
  const manifest = JSON.stringify({ version: 1, package: id, created: "2026-01-02T03:04:05Z", source: "mail", items: [] });
  const head = await seal(manifest, "server-secretkeycode");
  const { manifest: read } = await openHead(head, id, "server-secret", "keycode");
  assert.equal(read.package, id);
  await assert.rejects(openHead(head, id, "server-secret", "other"), DamagedError);
  await assert.rejects(openHead(head, "ff".repeat(16), "server-secret", "keycode"), DamagedError);
  await assert.rejects(openHead(head.slice(0, -1), id, "server-secret", "keycode"), DamagedError);
});
