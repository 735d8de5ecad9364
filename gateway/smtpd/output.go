package smtpd

import (
	"bytes"
	"fmt"
	"time"
)

// Replies that this package gives on its own, before go-smtp is asked or when it has no say any more.
const (
	goingDownReply     = "421 4.3.2 %s shutting down; try again later\r\n"
	timeoutReply       = "421 4.4.2 %s timed out waiting for you; closing\r\n"
	tooManyErrorsReply = "421 4.7.0 %s too many errors; closing\r\n"
	startTLSReply      = "220 2.0.0 %s ready to start TLS\r\n"
	injectionReply     = "554 5.5.1 %s plaintext behind STARTTLS; closing\r\n"
	busyReply          = "421 4.7.0 %s too many connections; try again later\r\n"
	deniedReply        = "554 5.7.1 %s access denied\r\n"
)

// acceptedText begins the text of the reply to an accepted mail; the queue ID follows.
const acceptedText = "accepted as "

// Write takes replies from go-smtp.
func (c *conn) Write(p []byte) (int, error) {
	c.replying = append(c.replying, p...)
	for {
		i := bytes.IndexByte(c.replying, '\n')
		if i < 0 {
			return len(p), nil
		}
		if !c.mute {
			c.reply(c.replying[:i+1])
		}
		c.replying = c.replying[i+1:]
	}
}

// reply looks at one line of a reply on its way out.
func (c *conn) reply(line []byte) {
	if len(line) < len("250\r\n") {
		return
	}
	code, last := string(line[:3]), line[3] != '-'
	switch {
	case c.dropped:
		c.dropped = !last
		return
	case code == "354" && c.verb == "BDAT":
		return
	case code == "220":
		c.introduce()
		return
	}
	line = c.reword(code, line)
	c.out = append(c.out, line...)
	if !last {
		return
	}
	switch line[0] {
	case '2':
		if c.verb == "EHLO" || c.verb == "HELO" {
			c.esmtp = c.verb == "EHLO"
		}
		if bytes.HasPrefix(line, []byte("250 2.0.0 "+acceptedText)) {
			c.errors = 0
		}
	case '4', '5':
		c.count(code)
		c.deaf = c.deaf || code == "421" // it promises to close
	}
}

// introduce handles the replies with code 220: the greeting, which is not sent again within TLS, and the
// one that lets the client begin TLS.
func (c *conn) introduce() {
	switch {
	case !c.greeted:
		c.greeted = true
		if c.greeting {
			c.answer("220 %s ESMTP Service Ready", c.hostname)
		}
	case c.in.Buffered() > 0:
		c.injected = true
		c.count("554")
		c.farewell(injectionReply)
	default:
		c.upgraded = true
		c.farewell(startTLSReply)
	}
}

// reword makes a reply of go-smtp say what RFC 5321 wants it to say, and nothing that the client has sent.
func (c *conn) reword(code string, line []byte) []byte {
	var text string
	switch c.verb + code {
	case "EHLO250":
		if !bytes.HasPrefix(line, []byte("250-Hello ")) {
			return line
		}
		text = "250-" + c.hostname
	case "HELO250":
		text = "250 " + c.hostname
	case "MAIL250":
		text = "250 2.1.0 sender ok"
	case "RCPT250":
		text = "250 2.1.5 recipient ok"
	case "NOOP250":
		text = "250 2.0.0 ok"
	case "VRFY252":
		text = "252 2.5.0 not verified; try RCPT"
	default:
		rest, ok := bytes.CutPrefix(line, []byte("502 5.5.1 "))
		if ok && !bytes.Contains(rest, []byte("not implemented")) && !bytes.Contains(rest, []byte("not supported")) {
			return append([]byte("503 5.5.1 "), rest...) // a bad sequence of commands
		}
		switch {
		case code == "500" && bytes.Contains(line, []byte("unrecognized")):
			text = "500 5.5.2 command not recognized"
		case c.verb == "MAIL" && bytes.Contains(line, []byte("Unable to parse SIZE")):
			text = "552 5.3.4 SIZE is no number, or too large a one" // go-smtp stops at 4 GiB
		default:
			return line
		}
	}
	return append([]byte(text), "\r\n"...)
}

// count keeps the books of replies 4xx and 5xx, and ends a dialogue that has too many of the latter.
func (c *conn) count(code string) {
	c.metrics.replies.WithLabelValues(code).Inc()
	if code[0] != '5' {
		return
	}
	if c.errors++; c.errors > c.limits.Errors {
		c.farewell(tooManyErrorsReply)
	}
}

// farewell sends a last reply. Nothing is read or written after it.
func (c *conn) farewell(format string) {
	c.out = fmt.Appendf(c.out, format, c.hostname)
	_ = c.flush() // the client is gone if it fails, and the dialogue ends anyway
	c.deaf, c.mute = true, true
}

// flush sends the replies that were gathered.
func (c *conn) flush() error {
	if len(c.out) == 0 || c.mute {
		return nil
	}
	c.mark()
	err := c.SetWriteDeadline(time.Now().Add(c.limits.CommandIdle))
	if err == nil {
		_, err = c.Conn.Write(c.out)
	}
	c.out = c.out[:0]
	if err != nil {
		c.deaf, c.mute = true, true
		return fmt.Errorf("send a reply: %w", err)
	}
	return nil
}
