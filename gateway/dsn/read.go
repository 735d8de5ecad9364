package dsn

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/mail"
	"regexp"
	"slices"
	"strings"
	"time"

	message "github.com/emersion/go-message"
)

const (
	maxDepth      = 20
	maxParts      = 500
	maxStatus     = 64 << 10
	maxRecipients = 50
	// maxSearched is how much of a mail is looked through; what is larger is not passed on as it is.
	maxSearched = 4 << 20
)

var (
	// statusIn finds an enhanced status code in a text, and no address of a host.
	statusIn = regexp.MustCompile(`(?:^|[\s(#:\[-])([45]\.[0-9]{1,3}\.[0-9]{1,3})(?:[\s),;:\]]|\.\s|$)`)
	// replyIn finds an SMTP reply code that stands for a failure where there is no enhanced one.
	replyIn = regexp.MustCompile(`(?:^|[\s#:])55[0-4][ -]`)
	// keptFields are returned; the others would show the way behind us.
	keptFields = []string{"from", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references"}
)

// bounce is what a mail that came back says.
type bounce struct {
	report bool // it is a delivery report
	daemon bool // it says that a mail server wrote it
	auto   bool // it says that it is an automatic answer, auto-replied (RFC 3834 section 5)
	opaque bool // it could not be searched everywhere
	leaks  bool
	public string // whose mail it is, by what leaks; empty: not known
	status string

	envelopeID string
	arrived    time.Time
	recipients []map[string]string
	header     []byte
}

// chatter reports whether a mail that cannot be passed on is nothing that its reader must hear of: an answer from behind us,
// such as that somebody is away, of which a bounce would tell him that his mail was lost. Only what says that it is an answer,
// and holds no code of a failure, is taken for one: a failure that nobody hears of is worse than a bounce too many.
func (b bounce) chatter() bool { return b.auto && !b.report && !b.daemon && b.status == "" }

type reader struct {
	bounce
	needles needles
	source  *faults
	parts   int
}

// faults keeps the error of the mail itself apart from those of its format. It fails once stop does.
type faults struct {
	io.Reader
	stop func() error
	err  error
}

func (f *faults) Read(p []byte) (int, error) {
	if f.err = cmp.Or(f.err, f.stop()); f.err != nil {
		return 0, f.err
	}
	n, err := f.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// read looks through a mail. What is malformed makes it opaque; an error is one of the mail's storage.
func read(ctx context.Context, r io.Reader, n needles) (bounce, error) {
	b := reader{needles: n, source: &faults{Reader: r, stop: ctx.Err}}
	b.entity(b.source, 0)
	if b.source.err != nil {
		return bounce{}, fmt.Errorf("read the returned mail: %w", b.source.err)
	}
	return b.bounce, nil
}

func (b *reader) entity(r io.Reader, depth int) {
	e, err := message.ReadWithOptions(r, &message.ReadOptions{MaxHeaderBytes: 128 << 10})
	if err != nil {
		b.opaque = true
	}
	if e != nil {
		b.walk(e, depth)
	}
}

func (b *reader) walk(e *message.Entity, depth int) {
	if b.parts++; depth > maxDepth || b.parts > maxParts {
		b.opaque = true
		return
	}
	for fields := e.Header.Fields(); fields.Next(); {
		b.leak(b.needles.inField(fields.Value()))
	}
	if depth == 0 {
		b.origin(e.Header)
	}
	kind, _, err := e.Header.ContentType()
	if err != nil && e.Header.Get("Content-Type") != "" {
		b.opaque = true
	}
	multi := e.MultipartReader()
	if multi == nil {
		b.leaf(e, kind, depth)
		return
	}
	for {
		part, err := multi.NextPart()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			b.opaque = true
		}
		if part == nil {
			return
		}
		b.walk(part, depth+1)
	}
}

// origin reads in the header who wrote the mail.
func (b *reader) origin(header message.Header) {
	word := strings.TrimSpace(header.Get("Auto-Submitted"))
	if end := strings.IndexAny(word, " \t(;"); end >= 0 { // a comment or a parameter follows
		word = word[:end]
	}
	b.auto = strings.EqualFold(word, "auto-replied")
	kind, _, _ := header.ContentType()
	subject, _ := header.Text("Subject") // what cannot be decoded is searched as it is
	b.findStatus([]byte(subject))
	from := strings.ToLower(header.Get("From"))
	b.daemon = kind == "multipart/report" || header.Has("X-Failed-Recipients") ||
		strings.Contains(from, "mailer-daemon") || strings.Contains(from, "postmaster")
}

func (b *reader) leak(public string, found bool) {
	b.leaks = b.leaks || found
	b.public = cmp.Or(b.public, public)
}

func (b *reader) leaf(e *message.Entity, kind string, depth int) {
	switch kind {
	case "message/delivery-status", "message/global-delivery-status":
		if depth == 1 { // not one that is quoted in a returned mail
			b.deliveryStatus(e.Body)
			return
		}
		b.search(e.Body, true)
		return
	case "message/rfc822", "message/global", "text/rfc822-headers", "message/global-headers":
		// The header is kept aside while the whole is searched.
		body := bufio.NewReaderSize(e.Body, maxHeader)
		start, _ := body.Peek(maxHeader)
		b.returned(bytes.NewReader(start))
		b.entity(body, depth+1)
		return
	}
	if strings.HasPrefix(kind, "application/") && !strings.HasSuffix(kind, "-signature") || strings.HasPrefix(kind, "message/") {
		b.opaque = true
	}
	b.search(e.Body, strings.HasPrefix(kind, "text/") || kind == "")
}

func (b *reader) search(body io.Reader, text bool) {
	if text {
		start := bufio.NewReaderSize(body, maxStatus)
		head, _ := start.Peek(maxStatus)
		b.findStatus(head)
		body = start
	}
	public, found, err := b.needles.inStream(body)
	b.leak(public, found)
	b.opaque = b.opaque || err != nil
}

// findStatus takes the first status that a text gives, if none was found before.
func (b *reader) findStatus(text []byte) {
	if b.status != "" {
		return
	}
	if found := statusIn.FindSubmatch(text); found != nil {
		b.status = string(found[1])
	} else if replyIn.Match(text) {
		b.status = "5.0.0"
	}
}

// deliveryStatus reads the blocks of fields of RFC 3464 section 2.1.
func (b *reader) deliveryStatus(body io.Reader) {
	text, err := io.ReadAll(io.LimitReader(body, maxStatus))
	if err != nil || b.report {
		b.opaque = true
		return
	}
	b.report = true
	for i, block := range blocks(text) {
		if i == 0 && block["final-recipient"] == "" {
			if id := block["original-envelope-id"]; !b.secret(id) {
				b.envelopeID = id
			}
			if t, err := mail.ParseDate(block["arrival-date"]); err == nil {
				b.arrived = t
			}
			continue
		}
		if (block["final-recipient"] != "" || block["action"] != "") && len(b.recipients) < maxRecipients {
			b.recipients = append(b.recipients, block)
		}
	}
}

func blocks(text []byte) (all []map[string]string) {
	block := map[string]string{}
	last := ""
	for line := range strings.SplitSeq(string(text), "\n") {
		line = strings.TrimRight(line, "\r")
		name, value, ok := strings.Cut(line, ":")
		switch {
		case strings.TrimSpace(line) == "":
			if len(block) > 0 {
				all = append(all, block)
			}
			block, last = map[string]string{}, ""
		case line[0] == ' ' || line[0] == '\t':
			block[last] += line
		case ok:
			last = strings.ToLower(strings.TrimSpace(name))
			block[last] = strings.TrimSpace(value)
		}
	}
	if len(block) > 0 {
		all = append(all, block)
	}
	return all
}

// returned keeps those fields of the sender's own mail that show nothing of where it went.
func (b *reader) returned(r io.Reader) {
	if b.header != nil {
		return
	}
	raw, err := readHeader(r)
	if err != nil {
		b.opaque = true
		return
	}
	b.header = []byte{}
	field := ""
	for line := range strings.SplitAfterSeq(string(raw), "\r\n") {
		if line != "" && (line[0] == ' ' || line[0] == '\t') {
			field += line
			continue
		}
		b.keep(field)
		field = line
	}
	b.keep(field)
}

func (b *reader) keep(field string) {
	name, value, ok := strings.Cut(field, ":")
	if ok && slices.Contains(keptFields, strings.ToLower(strings.TrimSpace(name))) && !b.secret(value) {
		b.header = append(b.header, field...)
	}
}

func (b *reader) secret(value string) bool {
	_, found := b.needles.inField(value)
	return found
}
