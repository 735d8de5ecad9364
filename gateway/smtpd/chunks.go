package smtpd

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// BDAT (RFC 3030) is carried out here: go-smtp would hold a mail's fate in a goroutine that outlives RSET,
// and take a chunk that was cut off for a whole one. It is given DATA in place of a mail's first BDAT, so
// that it checks the order of commands; its 354 is not sent, and Session.Data reads the chunks to the last.

// parseChunk reads a BDAT command. A malformed one ends the dialogue, for nobody knows where its chunk ends.
func (c *conn) parseChunk(line []byte) bool {
	args := strings.Fields(string(line[4:]))
	if len(args) > 0 && len(args) <= 2 && line[4] == ' ' && bytes.HasSuffix(line, []byte("\n")) {
		size, err := strconv.ParseUint(args[0], 10, 62)
		c.chunk, c.last = int64(size), len(args) == 2
		if err == nil && (!c.last || strings.EqualFold(args[1], "LAST")) {
			return true
		}
	}
	c.count("501")
	c.farewell("501 5.5.4 %s malformed BDAT command; closing\r\n")
	return false
}

// skipChunk drops what a refused transaction has left of its chunk.
func (c *conn) skipChunk() error {
	for c.chunk > 0 {
		if _, err := c.chunkText(); err != nil {
			return err
		}
	}
	return nil
}

// chunkText returns text of the chunk and consumes it. It is valid until the next read.
func (c *conn) chunkText() ([]byte, error) {
	text, err := c.text()
	if err != nil {
		return nil, err
	}
	text = text[:min(int64(len(text)), c.chunk)]
	c.consume(len(text))
	c.chunk -= int64(len(text))
	return text, nil
}

// nextChunk reads commands up to the next BDAT. It fails when the client gives the mail up.
func (c *conn) nextChunk() error {
	for {
		c.until = time.Now().Add(c.limits.CommandIdle)
		line, err := c.readLine()
		if err != nil {
			return err
		}
		switch verb := verbOf(line); verb {
		case "BDAT":
			if !c.parseChunk(line) {
				return errAborted
			}
			return nil
		case "NOOP":
			c.answer("250 2.0.0 ok")
		case "MAIL", "RCPT", "DATA":
			c.answer("503 5.5.1 %s not allowed between chunks", verb)
			c.count("503")
		default:
			c.pending = bytes.Clone(line) // go-smtp answers this one instead
			c.dropped = true
			return errAborted
		}
	}
}

// answer adds a reply line to those that are gathered.
func (c *conn) answer(format string, args ...any) {
	if !c.mute {
		c.out = append(fmt.Appendf(c.out, format, args...), "\r\n"...)
	}
}
