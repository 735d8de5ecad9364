package rewrite

import (
	"errors"
	"fmt"
	"io"
)

// Fields calls each for every field of the top header, in order, with its lower-cased name and unfolded value; a
// field over 12 KiB comes with an empty value. size is that of the field as it stands, in bytes.
func (m *Message) Fields(each func(name, value string, size int64)) error {
	return m.eachField(func(f field) error {
		each(f.name, f.valueIfRead(), f.size())
		return nil
	})
}

// Fields calls each for every field of the top header that goes on, as Message.Fields does.
func (p *Plan) Fields(each func(name, value string, size int64)) error {
	walk := p.msg.eachField
	if p.whole != "" {
		walk = p.msg.eachShortField
	}
	return walk(func(f field) error {
		if _, dropped := p.dropped[f.start]; !dropped {
			each(f.name, f.valueIfRead(), f.size())
		}
		return nil
	})
}

func (m *Message) eachField(each func(field) error) error {
	r := newFieldReader(m.src)
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the header: %w", err)
		}
		if err := each(f); err != nil {
			return err
		}
	}
}

// valueIfRead is empty where the field was too long to be read.
func (f field) valueIfRead() string {
	if f.raw == nil {
		return ""
	}
	return f.value()
}

// Header reads the top header, as it stands, with the empty line that ends it.
func (m *Message) Header() io.Reader {
	return io.LimitReader(section(m.src, span{0, m.root.body}), m.root.body)
}

// Size is that of the mail as it came, in bytes.
func (m *Message) Size() int64 { return m.src.Size() }
