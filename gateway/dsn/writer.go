package dsn

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"sealpost/gateway"
)

// Writer writes our own notices. Its values may be copied and used by several goroutines at once.
type Writer struct {
	// Hostname is our name in Reporting-MTA and Message-ID.
	Hostname string
	// From is the notices' author; empty: postmaster at Hostname.
	From string
}

// Write writes the complete mail that r describes, with CRLF line ends, 7-bit. Of r.Header at most 32 KiB are
// read, and written up to the last whole line.
func (w Writer) Write(out io.Writer, r gateway.Report) error {
	header, err := readHeader(r.Header)
	if err != nil {
		return err
	}
	recipient := recipientStatus{
		original: r.OriginalRecipient, final: mailbox(r.Recipient, w.Hostname), diagnostic: diagnosticCode(r), lastTry: r.Date,
	}
	c := composed{
		id: r.ID.String(), hostname: w.Hostname, from: w.From, to: r.To, date: r.Date,
		envelopeID: r.EnvelopeID, arrived: r.Arrived, header: header,
	}
	switch r.Kind {
	case gateway.NoticeFailed:
		c.subject, recipient.status = "Your mail was not delivered", validStatus(r.Status, "5.0.0")
	case gateway.NoticeDelayed:
		c.subject, recipient.status = "Your mail is delayed", validStatus(r.Status, "4.0.0")
		recipient.retryTill = r.RetryUntil
	case gateway.NoticeRelayed:
		c.subject, recipient.status = "Your mail was handed on", validStatus(r.Status, "2.0.0")
	default:
		return fmt.Errorf("write a notice: unknown kind %q", r.Kind)
	}
	recipient.action = string(r.Kind)
	c.recipients, c.text = []recipientStatus{recipient}, words(r, w.Hostname)
	return c.write(out)
}

// words is the text for people.
func words(r gateway.Report, hostname string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "This is the mail server %s.\r\n\r\nYour mail to %s", oneLine(hostname), oneLine(r.Recipient))
	if !r.Arrived.IsZero() {
		b.WriteString(", which arrived here on " + spoken(r.Arrived) + ",")
	}
	switch r.Kind {
	case gateway.NoticeFailed:
		b.WriteString(" was not delivered.\r\nIt is not tried again by itself. The administrators there keep it, encrypted, until they have seen to it.\r\n" +
			"If your matter is urgent, please use another way.\r\n")
	case gateway.NoticeDelayed:
		b.WriteString(" is not delivered yet.\r\nNothing is lost, and you need not send it again: it is kept and still being tried")
		if !r.RetryUntil.IsZero() {
			b.WriteString(" until " + spoken(r.RetryUntil))
		}
		b.WriteString(".\r\n")
	default:
		b.WriteString(" was handed on to a mail server that sends no reports of its own.\r\nYou may hear no more of it.\r\n")
	}
	if text := oneLine(r.Diagnostic); text != "" {
		who := "The reason"
		if r.Remote {
			who = "The next mail server said"
		}
		b.WriteString("\r\n" + who + ":\r\n    " + text + "\r\n")
	}
	return b.String()
}

func spoken(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// diagnosticCode is "smtp; 550 5.1.1 text" for a reply (RFC 3464 section 2.3.6), else in a type of our own.
func diagnosticCode(r gateway.Report) string {
	text := oneLine(r.Diagnostic)
	switch {
	case text == "" && (!r.Remote || r.Code == 0):
		return ""
	case !r.Remote:
		return "x-sealpost; " + text
	}
	if statusCode.MatchString(r.Status) && !strings.Contains(text, r.Status) {
		text = r.Status + " " + text
	}
	if code := strconv.Itoa(r.Code); r.Code > 0 && !strings.HasPrefix(text, code) {
		text = code + " " + text
	}
	return "smtp; " + text
}

// oneLine makes a text fit to stand in a line of the notice.
func oneLine(s string) string {
	s = strings.Join(strings.Fields(strings.Map(printable, strings.ToValidUTF8(s, "?"))), " ")
	if runes := []rune(s); len(runes) > maxValue {
		s = string(runes[:maxValue])
	}
	return s
}

// readHeader reads a header section up to its empty line, at most 32 KiB of whole lines, with CRLF line ends.
func readHeader(r io.Reader) ([]byte, error) {
	if r == nil {
		return nil, nil
	}
	var header bytes.Buffer
	lines := bufio.NewReaderSize(r, maxHeader)
	for {
		line, err := lines.ReadSlice('\n')
		last := errors.Is(err, io.EOF)
		if errors.Is(err, bufio.ErrBufferFull) {
			return header.Bytes(), nil
		}
		if err != nil && !last {
			return nil, fmt.Errorf("read the header of the mail: %w", err)
		}
		line = bytes.ReplaceAll(bytes.TrimRight(line, "\r\n"), []byte("\r"), []byte(" "))
		if len(line) == 0 || header.Len()+len(line)+2 > maxHeader {
			return header.Bytes(), nil
		}
		header.Write(line)
		header.WriteString("\r\n")
		if last {
			return header.Bytes(), nil
		}
	}
}
