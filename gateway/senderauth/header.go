package senderauth

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/mail"
	"regexp"
	"slices"
	"strings"
)

const (
	maxHeader  = 1 << 20  // of a header section that is read
	maxValue   = 16 << 10 // of a field that is looked at
	maxResults = 100      // Authentication-Results fields that are looked at
	maxFrom    = 10       // From fields that are looked at
	maxAuthors = 8        // domains of authors whose policies are looked up

	// The DKIM library joins folded lines one by one and searches all fields for each signed name. Headers
	// that would make that slow are not verified: no honest mail comes near.
	maxFields    = 2000
	maxSignature = 8 << 10   // of one DKIM-Signature field
	maxCopied    = 256 << 20 // octets that joining the folded lines would copy
)

// header is what counts of a mail's header section.
type header struct {
	from     []string // the values of the From fields, unfolded
	moreFrom bool     // there are more of them
	// results are the Authentication-Results fields from the top; received and hops are what stands above the
	// field that comes next.
	results    []resultsField
	received   int
	hops       int
	microsoft  bool // the last Received field was of Microsoft 365
	signatures int
	complete   bool // its end was found within maxHeader
	cut        bool // it goes on beyond maxHeader
	fields     int
	copied     int64
	costly     bool // it is not given to the DKIM library
}

type resultsField struct {
	value    string
	received int // how many Received fields stand above it
	hops     int // the same, but servers of Microsoft 365 in a row count as one
}

// scanHeader reads the header section once. A field over maxValue is cut, and so cannot be relied on:
// a From like that is malformed, an Authentication-Results field loses its last results.
func scanHeader(ctx context.Context, m Mail) (header, error) {
	var h header
	src := &contextReader{ctx: ctx, src: io.NewSectionReader(m, 0, min(m.Size(), maxHeader))}
	r := bufio.NewReaderSize(src, 4096)
	var name string
	var value []byte
	var size int64
	for {
		line, err := readLine(r)
		if err != nil && !errors.Is(err, io.EOF) {
			return h, fmt.Errorf("read the header section: %w", err)
		}
		end := len(line) == 0
		if !end && (line[0] == ' ' || line[0] == '\t') {
			value = appendBounded(value, line)
			size += int64(len(line))
			h.copied += size
			continue
		}
		h.add(name, string(value))
		if end {
			h.costly = h.costly || h.fields > maxFields || h.copied > maxCopied
			h.cut = err != nil && m.Size() > maxHeader
			h.complete = !h.cut
			return h, nil
		}
		key, rest, _ := bytes.Cut(line, []byte{':'})
		name, value = strings.ToLower(string(bytes.TrimRight(key, " \t"))), appendBounded(nil, rest)
		size = int64(len(line))
	}
}

func (h *header) add(name, value string) {
	h.fields++
	switch name {
	case "from":
		if h.moreFrom = len(h.from) == maxFrom; !h.moreFrom {
			h.from = append(h.from, value)
		}
	case "authentication-results":
		if len(h.results) < maxResults {
			h.results = append(h.results, resultsField{value: value, received: h.received, hops: h.hops})
		}
	case "dkim-signature":
		h.signatures++
		h.costly = h.costly || len(value) > maxSignature
	case "received":
		microsoft := byMicrosoft(value)
		if !h.microsoft || !microsoft {
			h.hops++
		}
		h.microsoft = microsoft
		h.received++
	}
}

// readLine returns a line without its end, cut after maxValue. At the end of the input the rest comes with io.EOF.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		piece, err := r.ReadSlice('\n')
		line = appendBounded(line, piece)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		return bytes.TrimRight(line, "\r\n"), err
	}
}

func appendBounded(to, from []byte) []byte {
	return append(to, from[:min(len(from), max(0, maxValue-len(to)))]...)
}

// contextReader reads until ctx ends.
type contextReader struct {
	ctx context.Context //nolint:containedctx // the reader lives no longer than the call that it serves
	src io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.src.Read(p)
}

func wrapContext(err error) error { return fmt.Errorf("judge the sender: %w", err) }

// authorDomains returns the domains of all authors, of all From fields: readers differ in which one they show (RFC
// 7489 section 6.6.1). unclear is set when there is none, or when there may be others that we cannot read.
func authorDomains(h header) (domains []string, unclear bool) {
	unclear = h.cut || h.moreFrom
	for _, value := range h.from {
		found := addressDomains(strings.ToValidUTF8(value, "?"))
		if len(found) == 0 && strings.TrimSpace(value) != "" || len(value) >= maxValue {
			unclear = true
		}
		for _, d := range found {
			domain := domainOf(d)
			switch {
			case slices.Contains(domains, domain):
			case domain == "" || len(domains) == maxAuthors:
				unclear = true
			default:
				domains = append(domains, domain)
			}
		}
	}
	return domains, unclear || len(domains) == 0
}

// looseAddress finds addresses where the grammar does not hold, for otherwise a From that is shown to
// people, but malformed, would evade DMARC.
var looseAddress = regexp.MustCompile(`@[ \t]*([^\s<>"(),:;@]+)`)

// isFrom reports whether address is the one author of the mail.
func (h header) isFrom(address string) bool {
	if h.cut || h.moreFrom || len(h.from) != 1 {
		return false
	}
	list, err := parseAddresses(h.from[0])
	return err == nil && len(list) == 1 && strings.EqualFold(list[0].Address, address)
}

func parseAddresses(value string) ([]*mail.Address, error) {
	parser := mail.AddressParser{WordDecoder: &mime.WordDecoder{
		// The display name does not count, so neither does its charset.
		CharsetReader: func(_ string, r io.Reader) (io.Reader, error) { return r, nil },
	}}
	return parser.ParseList(value)
}

func addressDomains(value string) []string {
	var domains []string
	if list, err := parseAddresses(value); err == nil {
		for _, address := range list {
			domains = append(domains, afterAt(address.Address))
		}
		return domains
	}
	for _, match := range looseAddress.FindAllStringSubmatch(value, -1) {
		domains = append(domains, match[1])
	}
	return domains
}
