package crypto

import "errors"

// What can be wrong with something sealed. Test with errors.Is.
var (
	// ErrAltered: sealed data was altered, cut or extended, or is not what its place asks for.
	ErrAltered = errors.New("the sealed data was altered or is incomplete")
	// ErrWrongSecret: the server secret and the keycode do not open this head.
	ErrWrongSecret = errors.New("the keycode and the server secret do not open this package")
	// ErrNotForKey: the head is not sealed to this recovery key.
	ErrNotForKey = errors.New("the package is not sealed to this recovery key")
	// ErrSignature: the head's signature is missing or bad, or by a key other than the expected one.
	ErrSignature = errors.New("the signature of the manifest is not good")
	// ErrManifest: a manifest breaks the rules of its format.
	ErrManifest = errors.New("the manifest is not valid")
	// ErrPassphrase: the passphrase does not unlock the private key.
	ErrPassphrase = errors.New("the passphrase does not unlock this private key")
	// ErrUnknownKey: a value was wrapped under a key that this keyring does not have.
	ErrUnknownKey = errors.New("the keyring does not have the key that wraps this value")
	// ErrUnwrap: a wrapped value was altered, or belongs to another table, column or row.
	ErrUnwrap = errors.New("the wrapped value was altered or belongs elsewhere")
)
