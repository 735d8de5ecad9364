package crypto

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// HeadObject is the Item of an Object that belongs to no item.
const HeadObject = -1

// Putter stores objects. Put reads body to its end, stores it under name and returns its size in bytes;
// it does not keep body.
type Putter interface {
	Put(ctx context.Context, name string, body io.Reader) (int64, error)
}

// Item is what may be known of a sealed file outside the manifest.
type Item struct {
	Ordinal  int   // its place in the manifest, from 0
	Size     int64 // of the plaintext, in bytes
	Segments int
}

// Object is one object that was put.
type Object struct {
	Name string
	Item int   // the ordinal of the item it is a segment of, or HeadObject
	Size int64 // as stored, in bytes
}

// Sealed is a finished package. The keycode belongs into the Secure Link and nowhere else; all the rest
// into the database, the server secret wrapped.
type Sealed struct {
	Keycode      Keycode
	ServerSecret ServerSecret
	ProofHash    [sha256.Size]byte
	Head         string   // the name of the head
	Objects      []Object // all of them, the head included
	Items        []Item
}

// Sealer seals packages to recovery keys, in the name of a gateway. It may be used concurrently.
type Sealer struct {
	recipients  []recipient
	signer      *SigningKey
	segmentSize int64
	readers     sync.Pool // of *segmentReader that nobody reads any more: what a mail needs to be sealed is far larger than most mails
}

// NewSealer makes a Sealer of 1 to 16 recovery keys and the gateway's signing key. It refuses a key
// that cannot be used at now with an error that says which and why (see RecoveryPublicKey.Check).
func NewSealer(recovery []*RecoveryPublicKey, signer *SigningKey, now time.Time) (*Sealer, error) {
	if len(recovery) == 0 {
		return nil, errors.New("at least one recovery key is needed: without one, what is sealed could be lost for good")
	}
	if len(recovery) > maxRecipients {
		return nil, fmt.Errorf("%d recovery keys are too many: at most %d", len(recovery), maxRecipients)
	}
	if signer == nil {
		return nil, errors.New("the gateway's signing key is needed to seal")
	}
	s := &Sealer{signer: signer, segmentSize: SegmentSize}
	for _, key := range recovery {
		to, err := key.recipient(now)
		if err != nil {
			return nil, err
		}
		s.recipients = append(s.recipients, to)
	}
	return s, nil
}

// Package is a package that is being sealed, by one goroutine at a time. It needs no closing: one that is
// not finished leaves unreferenced objects only.
type Package struct {
	hidden
	sealer     *Sealer
	keycode    Keycode
	server     ServerSecret
	proofHash  [sha256.Size]byte
	sessionKey []byte
	manifest   Manifest
	objects    []Object
	items      []Item
	finished   bool
	body       *segmentReader // reused for each segment; goes back to the sealer
}

// Begin starts a package with fresh secrets. id is random and new, created its time of creation, source
// where it came from.
func (s *Sealer) Begin(id ID, created time.Time, source string) (*Package, error) {
	p := &Package{
		sealer:     s,
		keycode:    Keycode{raw: newSecret()},
		server:     ServerSecret{raw: newSecret()},
		sessionKey: make([]byte, sessionKeySize),
		manifest: Manifest{
			Version: manifestVersion, Package: id, Created: created.UTC().Truncate(time.Second), Source: source,
		},
	}
	_, _ = rand.Read(p.sessionKey) // never fails (crypto/rand)
	proof, err := p.keycode.Proof(id)
	if err != nil {
		return nil, err
	}
	p.proofHash = proof.Hash()
	var ok bool
	if p.body, ok = s.readers.Get().(*segmentReader); !ok {
		p.body = newSegmentReader()
	}
	return p, nil
}

// AddItem seals plaintext, read to its end, into segments of at most SegmentSize bytes, one object each; an
// empty file has one segment. Bytes of name and contentType that are not UTF-8 become U+FFFD. After an
// error the package is as before, and the item may be added again.
func (p *Package) AddItem(ctx context.Context, to Putter, name, contentType string, plaintext io.Reader) (Item, error) {
	if p.finished {
		return Item{}, errors.New("the package is finished")
	}
	item := ManifestItem{Name: strings.ToValidUTF8(name, "\uFFFD"), Type: strings.ToValidUTF8(contentType, "\uFFFD")}
	ordinal := len(p.items)
	var objects []Object
	digests := sha256.New()
	src := p.body.in
	src.Reset(&source{r: plaintext, stop: ctx.Err})
	for more := true; more; {
		segment, err := p.putSegment(ctx, to, src, &item.CRC32)
		if err != nil {
			return Item{}, fmt.Errorf("seal segment %d of item %d: %w", len(objects), ordinal, err)
		}
		item.Segments = append(item.Segments, segment)
		item.Size += segment.Size
		digests.Write(segment.SHA256[:])
		objects = append(objects, Object{Name: segment.Object, Item: ordinal, Size: segment.StoredSize})
		if more, err = hasMore(src); err != nil {
			return Item{}, fmt.Errorf("read item %d: %w", ordinal, err)
		}
	}
	item.SHA256 = Digest(digests.Sum(nil))
	p.manifest.Items = append(p.manifest.Items, item)
	p.objects = append(p.objects, objects...)
	p.items = append(p.items, Item{Ordinal: ordinal, Size: item.Size, Segments: len(item.Segments)})
	return p.items[ordinal], nil
}

func (p *Package) putSegment(ctx context.Context, to Putter, src io.Reader, crc *Checksum) (ManifestSegment, error) {
	name := SegmentName(p.manifest.Package, p.manifest.Created)
	body := p.body
	if err := body.reset(io.LimitReader(src, p.sealer.segmentSize), p.sessionKey, *crc); err != nil {
		return ManifestSegment{}, err
	}
	n, err := to.Put(ctx, name, body)
	if err != nil {
		return ManifestSegment{}, fmt.Errorf("store %s: %w", name, err)
	}
	if !errors.Is(body.err, io.EOF) || n != body.storedSize {
		return ManifestSegment{}, fmt.Errorf("store %s: the store took %d bytes and stopped before the end", name, n)
	}
	*crc = body.crc
	return ManifestSegment{
		Object: name, Size: body.size, SHA256: Digest(body.plain.Sum(nil)),
		StoredSize: body.storedSize, StoredSHA256: Digest(body.stored.Sum(nil)),
	}, nil
}

func hasMore(r *bufio.Reader) (bool, error) {
	_, err := r.Peek(1)
	if err == io.EOF {
		return false, nil
	}
	return err == nil, err
}

// Finish stores the head and returns the package's secrets and parts. After an error it may be called again.
func (p *Package) Finish(ctx context.Context, to Putter) (Sealed, error) {
	if p.finished {
		return Sealed{}, errors.New("the package is finished")
	}
	text, err := p.manifest.encode()
	if err != nil {
		return Sealed{}, err
	}
	var head bytes.Buffer
	if err := p.writeHead(&head, text); err != nil {
		return Sealed{}, fmt.Errorf("seal the head: %w", err)
	}
	name := HeadName(p.manifest.Package, p.manifest.Created, 1)
	size := int64(head.Len())
	n, err := to.Put(ctx, name, &head)
	if err != nil {
		return Sealed{}, fmt.Errorf("store the head %s: %w", name, err)
	}
	if n != size {
		return Sealed{}, fmt.Errorf("store the head %s: the store took %d of %d bytes", name, n, size)
	}
	p.finished = true
	clear(p.sessionKey)
	p.body.forget()
	p.sealer.readers.Put(p.body)
	p.body = nil
	return Sealed{
		Keycode: p.keycode, ServerSecret: p.server, ProofHash: p.proofHash, Head: name,
		Objects: append(p.objects, Object{Name: name, Item: HeadObject, Size: size}), Items: p.items,
	}, nil
}
