// Opens what Go sealed with openpgp.js, an independent implementation of RFC 9580.
//
//   node open.mjs DIR
//
// DIR holds vector.json, the .asc files it names and the objects. Prints as JSON what was found: the
// manifest, and for each way of opening the SHA-256 of each file.
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import * as openpgp from 'openpgp';

const dir = process.argv[2];
const vector = JSON.parse(await readFile(join(dir, 'vector.json'), 'utf8'));
const object = async (name) => new Uint8Array(await readFile(join(dir, 'objects', name)));
const text = (name) => readFile(join(dir, name), 'utf8');

const password = vector.server_secret + vector.keycode;
const verificationKeys = await openpgp.readKey({ armoredKey: await text('signing-public.asc') });
const recovery = await openpgp.decryptKey({
  privateKey: await openpgp.readPrivateKey({ armoredKey: await text('recovery-private.asc') }),
  passphrase: vector.recovery_passphrase,
});

const read = (binaryMessage) => openpgp.readMessage({ binaryMessage });

async function openHead(head, keys) {
  const { data, signatures } = await openpgp.decrypt({
    message: await read(head), ...keys, verificationKeys, expectSigned: true, format: 'binary',
  });
  await signatures[0].verified; // throws if it is not
  return data;
}

function encryptedSessionKeys(message) {
  const { publicKeyEncryptedSessionKey, symEncryptedSessionKey } = openpgp.enums.packet;
  return message.packets.filterByTag(publicKeyEncryptedSessionKey, symEncryptedSessionKey).write();
}

async function digest(item, decrypt) {
  const hash = createHash('sha256');
  for (const segment of item.segments) {
    const { data } = await openpgp.decrypt({ ...await decrypt(await object(segment.object)), format: 'binary' });
    hash.update(data);
  }
  return hash.digest('hex');
}

async function digests(items, decrypt) {
  const found = [];
  for (const item of items) found.push(await digest(item, decrypt));
  return found;
}

const head = await object(vector.head);
const byPassphrase = await openHead(head, { passwords: [password] });
const byRecoveryKey = await openHead(head, { decryptionKeys: [recovery] });
if (Buffer.compare(Buffer.from(byPassphrase), Buffer.from(byRecoveryKey)) !== 0) throw new Error('two manifests');
const manifest = JSON.parse(new TextDecoder().decode(byPassphrase));

const sessionKeys = await openpgp.decryptSessionKeys({ message: await read(head), passwords: [password] });
const esk = encryptedSessionKeys(await read(head));
const whole = (segment) => read(Buffer.concat([esk, segment]));

const found = {
  manifest: new TextDecoder().decode(byPassphrase),
  session_key: await digests(manifest.items, async (s) => ({ message: await read(s), sessionKeys })),
  passphrase: await digests(manifest.items, async (s) => ({ message: await whole(s), passwords: [password] })),
  recovery_key: await digests(manifest.items, async (s) => ({ message: await whole(s), decryptionKeys: [recovery] })),
};
process.stdout.write(JSON.stringify(found));
