// Package spool holds one mail between the first byte of DATA and the reply to the final dot, encrypted,
// anonymous and readable as often as needed, so that nothing has to be decided before all of it is known.
//
// Up to MemoryLimit a mail stays in memory. Beyond that it goes to a temporary file that has no name
// (O_TMPFILE, else created and unlinked at once), under AES-256-CTR with a key that exists only in the
// Mail's memory. A crash therefore leaves nothing behind, and no plaintext is ever at rest. There is no
// integrity protection: nobody else can reach the file.
package spool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"sealpost/gateway"
)

// MemoryLimit is how many bytes of a mail stay in memory.
const MemoryLimit = 1 << 20

// Spool makes the places where mails wait. Its methods may be called concurrently.
type Spool struct{ dir string }

// Open returns a spool whose temporary files are in dir, and makes dir if it is missing.
func Open(dir string) (*Spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the spool directory: %w", err)
	}
	return &Spool{dir: dir}, nil
}

// New returns an empty place for one mail. The caller closes it.
func (s *Spool) New() *Mail { return &Mail{dir: s.dir} }

// Mail is one mail: written once from the beginning, then read at any offset. Reading may be concurrent,
// writing may not. It is a gateway.Spooled.
type Mail struct {
	dir    string
	memory []byte
	file   *file // nil while the mail fits in memory
	size   int64
	closed bool
}

var _ gateway.Spooled = (*Mail)(nil)

// Write appends p. A full disk gives a gateway.Error with CodeStorageFull.
func (m *Mail) Write(p []byte) (int, error) {
	if m.closed {
		return 0, os.ErrClosed
	}
	if m.file == nil && m.size+int64(len(p)) > MemoryLimit {
		if err := m.spill(); err != nil {
			return 0, err
		}
	}
	if m.file == nil {
		m.memory = append(m.memory, p...)
		m.size += int64(len(p))
		return len(p), nil
	}
	n, err := m.file.write(p)
	m.size += int64(n)
	return n, diskError("write to the spool", err)
}

// spill moves the mail from memory to a file.
func (m *Mail) spill() error {
	f, err := openFile(m.dir)
	if err != nil {
		return diskError("open a spool file", err)
	}
	if _, err := f.write(m.memory); err != nil {
		return errors.Join(diskError("write to the spool", err), f.close())
	}
	m.file, m.memory = f, nil
	return nil
}

// ReadAt reads what was written.
func (m *Mail) ReadAt(p []byte, offset int64) (int, error) {
	switch {
	case m.closed:
		return 0, os.ErrClosed
	case offset < 0:
		return 0, errors.New("read the spool: negative offset")
	case offset >= m.size:
		return 0, io.EOF
	}
	short := int64(len(p)) > m.size-offset
	if short {
		p = p[:m.size-offset]
	}
	n, err := len(p), error(nil)
	if m.file == nil {
		copy(p, m.memory[offset:])
	} else if n, err = m.file.readAt(p, offset); err != nil {
		return n, fmt.Errorf("read the spool: %w", err)
	}
	if short {
		err = io.EOF
	}
	return n, err
}

// Size is the number of bytes written so far.
func (m *Mail) Size() int64 { return m.size }

// Close forgets the mail: its key, its memory and its file.
func (m *Mail) Close() error {
	if m.closed {
		return nil
	}
	m.closed = true
	clear(m.memory)
	m.memory = nil
	if m.file == nil {
		return nil
	}
	return m.file.close()
}

// create opens a file in dir that no path leads to.
func create(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "spool")), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "spool-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// diskError tells a full disk, which the sender may wait out, from other failures.
func diskError(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return gateway.Errorf(gateway.CodeStorageFull, fmt.Errorf("%s: %w", doing, err), "insufficient system storage")
	}
	return fmt.Errorf("%s: %w", doing, err)
}
