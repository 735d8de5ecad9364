package rewrite

import (
	"errors"
	"fmt"
	"io"
)

const (
	// maxText is how many characters Email-to-Case takes: it bounces a mail for a longer TextBody, and cuts a longer
	// HtmlBody from the end.
	maxText = 131072
	// maxPageNotice is more than the characters of any notice as HTML, where each character of a name may take ten.
	maxPageNotice = 24 << 10
	// longText is where the notice goes above a text rather than below it, in characters.
	longText = 32768
)

// replaceLongText seals q if it would be a TextBody that Email-to-Case refuses. Room for the notice is counted in,
// since q may have to carry it.
func (p *Plan) replaceLongText(q *part) error {
	if q.typ != "text/plain" {
		return nil
	}
	long, err := p.isLonger(q, maxText-maxNotice)
	if long {
		p.fates[q] = replaced
		delete(p.inside, q) // they go with it
	}
	return err
}

// copyLongPages seals a copy of each page that Email-to-Case would cut. Room is left for the notice if there is one.
func (p *Plan) copyLongPages() error {
	limit := int64(maxText)
	if p.changes() {
		limit -= maxPageNotice
	}
	var err error
	p.msg.root.walk(func(q *part) bool {
		if err != nil || p.fates[q] == leaves || q.message {
			return false
		}
		var long bool
		if q.typ != "text/html" || p.fates[q] != stays {
			return true
		}
		if long, err = p.isLonger(q, limit); long {
			p.fates[q] = copied
		}
		return true
	})
	return err
}

// isLonger reports whether a text without the files in it has more characters than limit, after decoding, as Salesforce
// counts. What breaks its transfer encoding or its charset is counted by its bytes, since nobody knows what others make of it.
func (p *Plan) isLonger(q *part, limit int64) (bool, error) {
	if q.end-q.body <= limit {
		return false, nil // no encoding makes more characters than bytes
	}
	count := newTextCount()
	text, err := p.textOf(q)
	if err != nil {
		return false, err
	}
	if enc := encodingOf(q.charset); enc != nil {
		text = enc.NewDecoder().Reader(text)
	}
	size, err := io.Copy(count, text)
	if errors.Is(err, errDirty) {
		return true, nil
	}
	if err == nil {
		err = count.Close()
	}
	if err != nil {
		return false, fmt.Errorf("measure a text: %w", err)
	}
	if count.broken {
		return size > limit, nil
	}
	return count.characters > limit, nil
}
