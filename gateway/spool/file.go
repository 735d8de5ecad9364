package spool

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"sync"
)

const chunkSize = 64 << 10

// file is an anonymous file under a key of its own.
type file struct {
	f      *os.File
	block  cipher.Block
	stream cipher.Stream // encrypts what is appended
	size   int64
	chunks sync.Pool // *[chunkSize]byte, for what is on its way to the file
}

func openFile(dir string) (*file, error) {
	var key [32]byte
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	block, err := aes.NewCipher(key[:])
	clear(key[:])
	if err != nil {
		return nil, fmt.Errorf("set up the spool's cipher: %w", err)
	}
	f, err := create(dir)
	if err != nil {
		return nil, err
	}
	return &file{
		f: f, block: block, stream: cipher.NewCTR(block, counter(0)),
		chunks: sync.Pool{New: func() any { return new([chunkSize]byte) }},
	}, nil
}

// counter is the CTR block for a block number. The key is never used again, so it may start at zero.
func counter(block int64) []byte {
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(block))
	return iv[:]
}

func (f *file) write(p []byte) (int, error) {
	chunk := f.chunks.Get().(*[chunkSize]byte)
	defer f.chunks.Put(chunk)
	written := 0
	for written < len(p) {
		n := min(len(p)-written, chunkSize)
		f.stream.XORKeyStream(chunk[:n], p[written:written+n])
		done, err := f.f.WriteAt(chunk[:n], f.size)
		f.size += int64(done)
		written += done
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

func (f *file) readAt(p []byte, offset int64) (int, error) {
	n, err := f.f.ReadAt(p, offset)
	stream := cipher.NewCTR(f.block, counter(offset/aes.BlockSize))
	var skip [aes.BlockSize]byte
	within := skip[:offset%aes.BlockSize]
	stream.XORKeyStream(within, within)
	stream.XORKeyStream(p[:n], p[:n])
	return n, err
}

func (f *file) close() error {
	f.block, f.stream = nil, nil
	if err := f.f.Close(); err != nil {
		return fmt.Errorf("close the spool file: %w", err)
	}
	return nil
}
