package certificate

import (
	"crypto/tls"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
)

// stamp tells one state of a file from another.
type stamp struct {
	changed time.Time
	size    int64
	inode   uint64
}

// file is one pair as it was last read. It is never changed once others see it.
type file struct {
	pair Pair
	cert *tls.Certificate
	seen [2]stamp
}

// load reads the pair. The stamps are taken first, so that a change in between is seen the next time.
func (f *file) load() error {
	f.seen = f.look()
	cert, err := tls.LoadX509KeyPair(f.pair.Cert, f.pair.Key)
	if err != nil {
		return fmt.Errorf("certificate %s, key %s: %w", f.pair.Cert, f.pair.Key, err)
	}
	f.cert = &cert
	return nil
}

// look takes the stamps; a file that cannot be seen has the zero one.
func (f *file) look() [2]stamp {
	return [2]stamp{stampOf(f.pair.Cert), stampOf(f.pair.Key)}
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	s := stamp{changed: info.ModTime(), size: info.Size()}
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = sys.Ino
	}
	return s
}

// names tells whether the certificate names name, exactly or by a wildcard for its first label
// (RFC 6125 section 6.4.3).
func (f *file) names(name string, wildcard bool) bool {
	if wildcard {
		_, parent, found := strings.Cut(name, ".")
		if !found {
			return false
		}
		name = "*." + parent
	}
	for _, n := range f.cert.Leaf.DNSNames {
		if strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}
