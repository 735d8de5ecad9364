// Package crypto seals packages and opens them again, and keeps the secrets of a gateway.
//
// It is the only package that knows OpenPGP, and it makes no format, cipher or key derivation of its own.
// What it writes is RFC 9580: every sealed object is a version 2 Symmetrically Encrypted and Integrity
// Protected Data (SEIPD) packet with AES-256-GCM in chunks of 256 KiB, fixed by packet-level functions
// and never negotiated from a key's preferences. What it reads must look exactly like that: anything
// else, and any compressed data above all, is refused before it is decrypted.
//
// A package has three secrets. The keycode K is the half that the Secure Link carries; the server secret S
// is the half that the database keeps; both together are the passphrase of the package's head. The
// session key encrypts the head and every segment, and lies in the head only, under that passphrase and
// under each recovery key.
//
// Decisions:
//
//   - Everything streams. Sealing pulls: the body handed to a Putter encrypts as it is read, so no goroutine
//     outlives a call, and a store that stops reading stops the encryption. A package being sealed needs
//     about 2 MiB for the buffers of one segment, whatever its size.
//   - A recovery key is checked when the Sealer is made and used until the process ends: one that expires
//     at midnight must not turn mail away at midnight.
//   - The clock is not trusted to run forward. A signature is never dated before its key, and whether one
//     verifies does not depend on the reader's clock.
//   - The head's signature does not name its intended recipients: the manifest names the package, and
//     OpenHead compares it.
//   - Errors that a caller may need to tell apart are the Err variables; none holds a secret, and every
//     type that does prints as "[redacted]".
package crypto
