package crypto

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"
	"unicode/utf8"
)

const (
	manifestVersion = 1
	maxManifest     = 64 << 20
	// SegmentSize is the most plaintext that one segment holds, in bytes.
	SegmentSize = 32 << 20
)

// Digest is a SHA-256, written as 64 lower-case hex digits.
type Digest [sha256.Size]byte

// Checksum is a CRC-32 (IEEE, as in ZIP), written as 8 lower-case hex digits.
type Checksum uint32

var (
	_ encoding.TextUnmarshaler = (*Digest)(nil)
	_ encoding.TextUnmarshaler = (*Checksum)(nil)
)

// Manifest is the sealed list of a package's items, the plaintext of its head. File names are in no
// other place, so a Manifest does not print; its JSON is the format itself.
type Manifest struct {
	Version int       `json:"version"`
	Package ID        `json:"package"`
	Created time.Time `json:"created"` // in UTC, to the second
	Source  string    `json:"source"`
	// Items are the files, each at the ordinal that AddItem returned for it.
	Items []ManifestItem `json:"items"`
}

// ManifestItem is one file.
type ManifestItem struct {
	// Name is what the sender called the file. It may be anything: never use it as a path.
	Name  string   `json:"name"`
	Type  string   `json:"type"` // its media type
	Size  int64    `json:"size"` // in bytes
	CRC32 Checksum `json:"crc32"`
	// SHA256 is taken over the concatenated raw digests of the segments' plaintexts.
	SHA256   Digest            `json:"sha256"`
	Segments []ManifestSegment `json:"segments"`
}

// ManifestSegment is one piece of a file and the object that holds it.
type ManifestSegment struct {
	Object       string `json:"object"`
	Size         int64  `json:"size"`
	SHA256       Digest `json:"sha256"`
	StoredSize   int64  `json:"stored_size"` // of the object
	StoredSHA256 Digest `json:"stored_sha256"`
}

// ParseManifest reads a manifest of at most 64 MiB. It refuses a version it does not know and whatever
// contradicts itself; it ignores fields it does not know. Its errors are ErrManifest or r's.
func ParseManifest(r io.Reader) (Manifest, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxManifest+1))
	if err != nil {
		return Manifest{}, fmt.Errorf("read the manifest: %w", err)
	}
	if len(text) > maxManifest {
		return Manifest{}, fmt.Errorf("%w: it is over %d bytes", ErrManifest, maxManifest)
	}
	var version struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(text, &version); err != nil {
		return Manifest{}, badManifest(err)
	}
	if version.Version != manifestVersion {
		return Manifest{}, fmt.Errorf("%w: version %d is unknown here; a newer program may read it", ErrManifest, version.Version)
	}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return Manifest{}, badManifest(err)
	}
	if err := m.validate(); err != nil {
		return Manifest{}, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	return m, nil
}

// badManifest tells what is wrong with the JSON without repeating any of it.
func badManifest(err error) error {
	var syntax *json.SyntaxError
	var mistyped *json.UnmarshalTypeError
	switch {
	case errors.As(err, &syntax):
		return fmt.Errorf("%w: it is not JSON, at byte %d", ErrManifest, syntax.Offset)
	case errors.As(err, &mistyped):
		return fmt.Errorf("%w: a field has the wrong type, at byte %d", ErrManifest, mistyped.Offset)
	}
	return fmt.Errorf("%w: a field has a wrong value", ErrManifest)
}

// encode returns the manifest in the form that ParseManifest reads, after the same checks.
func (m *Manifest) encode() ([]byte, error) {
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrManifest, err)
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return nil, fmt.Errorf("encode the manifest: %w", err)
	}
	if out.Len() > maxManifest {
		return nil, fmt.Errorf("%w: it is over %d bytes", ErrManifest, maxManifest)
	}
	return out.Bytes(), nil
}

func (m *Manifest) validate() error {
	if _, offset := m.Created.Zone(); offset != 0 || m.Created.IsZero() {
		return errors.New("created must be a time in UTC")
	}
	if m.Source == "" {
		return errors.New("it names no source")
	}
	if len(m.Items) == 0 {
		return errors.New("it has no items")
	}
	seen := make(map[string]bool)
	for i := range m.Items {
		if err := m.Items[i].validate(m.Package, seen); err != nil {
			return fmt.Errorf("item %d: %w", i, err)
		}
	}
	return nil
}

func (it *ManifestItem) validate(id ID, seen map[string]bool) error {
	if !utf8.ValidString(it.Name) || !utf8.ValidString(it.Type) {
		return errors.New("name and type must be UTF-8")
	}
	if len(it.Segments) == 0 {
		return errors.New("it has no segments")
	}
	var size int64
	digests := sha256.New()
	for i, s := range it.Segments {
		if err := s.validate(id, len(it.Segments) == 1); err != nil {
			return fmt.Errorf("segment %d: %w", i, err)
		}
		if seen[s.Object] {
			return fmt.Errorf("segment %d: its object is named twice", i)
		}
		seen[s.Object] = true
		size += s.Size // cannot overflow: a segment is small, and so is the manifest that lists it
		digests.Write(s.SHA256[:])
	}
	if size != it.Size {
		return errors.New("its size is not that of its segments")
	}
	if Digest(digests.Sum(nil)) != it.SHA256 {
		return errors.New("its digest is not that of its segments")
	}
	return nil
}

func (s *ManifestSegment) validate(id ID, only bool) error {
	name, err := ParseObjectName(s.Object)
	if err != nil {
		return err
	}
	if name.ID != id || name.Kind != KindSegment {
		return errors.New("its object is not a segment of this package")
	}
	if s.Size < 0 || s.Size > SegmentSize || s.Size == 0 && !only {
		return errors.New("its size is out of range")
	}
	// What OpenPGP adds: a tag for each chunk, and lengths of partial bodies, which are 512 bytes at least.
	if s.StoredSize <= s.Size || s.StoredSize > s.Size+s.Size/128+4096 {
		return errors.New("its stored size does not match its size")
	}
	return nil
}

// Format hides the manifest from every print verb.
func (m Manifest) Format(f fmt.State, v rune) { hidden{}.Format(f, v) }

// LogValue hides the manifest from slog.
func (m Manifest) LogValue() slog.Value { return hidden{}.LogValue() }

// Format hides the item from every print verb.
func (it ManifestItem) Format(f fmt.State, v rune) { hidden{}.Format(f, v) }

// LogValue hides the item from slog.
func (it ManifestItem) LogValue() slog.Value { return hidden{}.LogValue() }

// String returns 64 lower-case hex digits.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText returns 64 lower-case hex digits.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (d *Digest) UnmarshalText(text []byte) error { return decodeHex(d[:], text) }

// String returns 8 lower-case hex digits.
func (c Checksum) String() string { return fmt.Sprintf("%08x", uint32(c)) }

// MarshalText returns 8 lower-case hex digits.
func (c Checksum) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (c *Checksum) UnmarshalText(text []byte) error {
	var raw [4]byte
	if err := decodeHex(raw[:], text); err != nil {
		return err
	}
	*c = Checksum(binary.BigEndian.Uint32(raw[:]))
	return nil
}

func decodeHex(to, text []byte) error {
	if !lowerHex(string(text), len(to)) {
		return fmt.Errorf("want %d lower-case hex digits", hex.EncodedLen(len(to)))
	}
	_, err := hex.Decode(to, text)
	return err
}
