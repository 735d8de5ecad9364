// The portal's API, version 1.
import { type Bytes, fromBase64 } from "./encoding";

/** A failure with the API's code, or "offline" when no answer came. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
    this.name = "ApiError";
  }
}

export interface Session {
  authenticated: boolean;
  agent: string;
}

/** What a virus scanner said of the mail, unless it found it clean. */
export interface Scan {
  infected: boolean;
  signature: string;
}

export interface Opened {
  serverSecret: string;
  grant: string;
  scan: Scan | null;
  /** Objects come by URLs of their own, from where they are stored. */
  direct: boolean;
  head: Bytes;
}

async function call(path: string, init: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { cache: "no-store", credentials: "same-origin", redirect: "error", ...init });
  } catch {
    throw new ApiError("offline", "The server cannot be reached.");
  }
  if (response.ok) return response;
  throw await failure(response);
}

async function failure(response: Response): Promise<ApiError> {
  let body: unknown = null;
  try {
    body = await response.json();
  } catch {
    // Not from the portal but from something in front of it.
  }
  if (isRecord(body) && typeof body.code === "string" && typeof body.message === "string") {
    return new ApiError(body.code, body.message);
  }
  return new ApiError("unavailable", "The server did not answer as expected.");
}

function post(path: string, body: unknown): Promise<Response> {
  return call(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
}

/** Reads a body whole; a connection that breaks in the middle is "offline". */
async function read<T>(reading: Promise<T>): Promise<T> {
  try {
    return await reading;
  } catch {
    throw new ApiError("offline", "The connection broke off.");
  }
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export async function session(): Promise<Session> {
  const response = await call("/api/v1/session", {});
  const body = await read(response.json() as Promise<unknown>);
  if (!isRecord(body)) throw new ApiError("unavailable", "The server did not answer as expected.");
  return {
    authenticated: body.authenticated === true,
    agent: typeof body.agent === "string" ? body.agent : "",
  };
}

export async function login(agent: string, password: string): Promise<void> {
  await post("/api/v1/login", { agent, password });
}

export async function logout(): Promise<void> {
  await post("/api/v1/logout", {});
}

export async function open(id: string, proof: string): Promise<Opened> {
  const response = await post(`/api/v1/packages/${id}/open`, { proof });
  const body = await read(response.json() as Promise<unknown>);
  if (
    !isRecord(body) ||
    typeof body.server_secret !== "string" ||
    typeof body.grant !== "string" ||
    typeof body.head !== "string"
  ) {
    throw new ApiError("unavailable", "The server did not answer as expected.");
  }
  return {
    serverSecret: body.server_secret,
    grant: body.grant,
    scan: parseScan(body.scan),
    direct: body.direct === true,
    head: fromBase64(body.head),
  };
}

/** A verdict other than infected means that nobody has scanned the files. */
export function parseScan(value: unknown): Scan | null {
  if (value === undefined) return null;
  if (!isRecord(value) || typeof value.verdict !== "string") {
    throw new ApiError("unavailable", "The server did not answer as expected.");
  }
  return {
    infected: value.verdict === "infected",
    signature: typeof value.signature === "string" ? value.signature : "",
  };
}

/** Fetches one object whole. */
export async function object(id: string, name: string, opened: Opened): Promise<Bytes> {
  const path = name.split("/").map(encodeURIComponent).join("/");
  const init = { headers: { "Sealpost-Grant": opened.grant } };
  if (!opened.direct) {
    const response = await call(`/api/v1/packages/${id}/objects/${path}`, init);
    return new Uint8Array(await read(response.arrayBuffer()));
  }
  const answer = await call(`/api/v1/packages/${id}/urls/${path}`, init);
  const body = await read(answer.json() as Promise<unknown>);
  if (!isRecord(body) || typeof body.url !== "string") {
    throw new ApiError("unavailable", "The server did not answer as expected.");
  }
  // Another server: it gets neither cookie nor grant, and learns nothing of the page.
  const stored = await call(body.url, { credentials: "omit", referrerPolicy: "no-referrer" });
  return new Uint8Array(await read(stored.arrayBuffer()));
}
