// The manifest: the sealed list of a package's items. It is checked whole before anything in it is used.
import { isRecord } from "./api";

export interface Segment {
  object: string;
  size: number;
  sha256: string;
  storedSize: number;
  storedSha256: string;
}

export interface Item {
  name: string;
  type: string;
  size: number;
  sha256: string;
  segments: Segment[];
}

export interface Manifest {
  package: string;
  created: Date;
  items: Item[];
}

/** The manifest does not say what a manifest must; the message says where. */
export class ManifestError extends Error {
  override readonly name = "ManifestError";
}

/** Largest plaintext of a segment, and what sealing can add to it at most. */
const maxSegment = 32 << 20;
const maxStored = maxSegment + (1 << 20);

/** Parses the manifest of the package id. An unknown version is refused, unknown fields are ignored. */
export function parseManifest(text: string, id: string): Manifest {
  let root: unknown;
  try {
    root = JSON.parse(text);
  } catch {
    throw new ManifestError("it is not JSON");
  }
  const fields = record(root, "manifest");
  if (fields.version !== 1) throw new ManifestError("its version is not known to this page");
  if (fields.package !== id) throw new ManifestError("it belongs to another package");
  const created = new Date(string(fields, "created"));
  if (Number.isNaN(created.getTime())) throw new ManifestError("created is not a time");
  return { package: id, created, items: list(fields, "items").map((item) => parseItem(item, id)) };
}

function parseItem(value: unknown, id: string): Item {
  const fields = record(value, "item");
  const segments = list(fields, "segments").map((segment) => parseSegment(segment, id));
  const size = integer(fields, "size", Number.MAX_SAFE_INTEGER);
  if (segments.reduce((sum, segment) => sum + segment.size, 0) !== size) {
    throw new ManifestError("an item's segments do not add up to its size");
  }
  return { name: string(fields, "name"), type: string(fields, "type"), size, sha256: digest(fields, "sha256"), segments };
}

function parseSegment(value: unknown, id: string): Segment {
  const fields = record(value, "segment");
  const object = string(fields, "object");
  if (!/^\d{8}\/[0-9a-f]{32}\.s\.[0-9a-f]{16}$/.test(object) || object.slice(9, 41) !== id) {
    throw new ManifestError("a segment is not an object of this package");
  }
  return {
    object,
    size: integer(fields, "size", maxSegment),
    sha256: digest(fields, "sha256"),
    storedSize: integer(fields, "stored_size", maxStored),
    storedSha256: digest(fields, "stored_sha256"),
  };
}

function record(value: unknown, what: string): Record<string, unknown> {
  if (!isRecord(value)) throw new ManifestError(`${what} is not an object`);
  return value;
}

function list(fields: Record<string, unknown>, key: string): unknown[] {
  const value = fields[key];
  if (!Array.isArray(value)) throw new ManifestError(`${key} is not a list`);
  return value;
}

function string(fields: Record<string, unknown>, key: string): string {
  const value = fields[key];
  if (typeof value !== "string") throw new ManifestError(`${key} is not a text`);
  return value;
}

function digest(fields: Record<string, unknown>, key: string): string {
  const value = string(fields, key);
  if (!/^[0-9a-f]{64}$/.test(value)) throw new ManifestError(`${key} is not a SHA-256`);
  return value;
}

function integer(fields: Record<string, unknown>, key: string, max: number): number {
  const value = fields[key];
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0 || value > max) {
    throw new ManifestError(`${key} is not a size`);
  }
  return value;
}
