// Package personal finds personal data in the text of a mail: payment cards, IBANs, US social security numbers
// and whatever the admin's own patterns describe. It is a package of its own because it reads text, where package
// policy judges parts by their headers alone.
//
// Its decisions:
//
//   - A checksum alone proves little: every tenth number passes Luhn. So a card also needs an issuer's range and
//     length, digit groups as people write them, and must not be labelled as something else ("order", "invoice",
//     "Sendung", "#", ...) in the few words before it, unless a card word stands nearer. What is rare (a Visa of 13
//     digits, a Maestro of 12, odd groups) needs a card word. Test numbers count like any other.
//   - An IBAN needs its country's length and kinds of characters, and the checksum.
//   - A social security number needs its hyphens, or a word like SSN near it. Impossible ones are refused.
//   - A number may be broken once over two lines, as mail programs wrap text, also within a quotation.
//   - Links, mail addresses, Message-IDs and threading tokens of Email-to-Case are never part of a match.
//   - In HTML the text is what a reader sees: markup, comments, styles and scripts are none, character references
//     count as what they mean. A number may run over inline tags; a line break in it counts as in plain text.
//   - Text is read once through a window of bounded size. A match has at most 256 bytes of text: of what a pattern
//     matches beyond that, the first 256 bytes at least are reported, in pieces. In a pattern ^ and $ stand for the
//     ends of a line.
//
// It is a help, not a promise: Evaluate says how often it errs.
package personal

import (
	"errors"
	"fmt"
	"io"
)

// The names of the built-in detectors.
const (
	Card = "card" // payment card numbers
	IBAN = "iban" // International Bank Account Numbers, ISO 13616
	SSN  = "ssn"  // US social security numbers
)

// Options choose what is looked for.
type Options struct {
	Cards, IBANs, SSNs bool
	// Patterns are the admin's own: a name of [a-z0-9-]{1,32}, no built-in one, and an RE2 expression that cannot
	// match the empty text.
	Patterns map[string]string
}

// Detectors find and mask personal data. They are immutable and safe for concurrent use.
type Detectors struct {
	cards, ibans, ssns bool
	patterns           []pattern
}

// Match is one finding.
type Match struct {
	Detector string // Card, IBAN, SSN or the name of a pattern
	// Ranges are the bytes that make up the match: from (inclusive) and to (exclusive), as offsets in what was
	// read. They are in order, not empty and do not touch. Plain text has one range, except where something that
	// is never masked lies within; HTML has several where markup lies within.
	Ranges [][2]int64

	letters int // how many characters Mask may replace
}

// New prepares detectors. The error names the pattern that is wrong and says why.
func New(options Options) (*Detectors, error) {
	patterns, err := compile(options.Patterns)
	if err != nil {
		return nil, err
	}
	return &Detectors{cards: options.Cards, ibans: options.IBANs, ssns: options.SSNs, patterns: patterns}, nil
}

// Find reads UTF-8 text to its end and calls found for each match, in order and not overlapping. Where two
// detectors want the same bytes, the match that begins first has them, then the longer one. Bytes that are no UTF-8
// do no harm. Errors are those of r and of found; after one the rest is not read.
func (d *Detectors) Find(r io.Reader, found func(Match) error) error {
	return d.scan(&plainText{r: r}, found)
}

// FindHTML is Find over UTF-8 HTML: the ranges are offsets in the HTML.
func (d *Detectors) FindHTML(r io.Reader, found func(Match) error) error {
	return d.scan(&htmlText{r: r}, found)
}

// none says that there is nothing to look for.
func (d *Detectors) none() bool {
	return !d.cards && !d.ibans && !d.ssns && len(d.patterns) == 0
}

// errNoProgress is the fate of a reader that returns neither bytes nor an error, again and again.
var errNoProgress = fmt.Errorf("read text: %w", io.ErrNoProgress)

// read fills p with at least one byte, or says that r has ended.
func read(r io.Reader, p []byte) (n int, ended bool, err error) {
	for range 100 {
		n, err := r.Read(p)
		if errors.Is(err, io.EOF) {
			return n, true, nil
		}
		if err != nil {
			return n, false, fmt.Errorf("read text: %w", err)
		}
		if n > 0 {
			return n, false, nil
		}
	}
	return 0, false, errNoProgress
}
