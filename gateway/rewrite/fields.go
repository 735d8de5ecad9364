package rewrite

import (
	"errors"
	"fmt"
	"io"
)

// Fields calls each for every field of the top header, in order, with its lower-cased name and unfolded value; a
// field over 12 KiB comes with an empty value. size is that of the field as it stands, in bytes.
func (m *Message) Fields(each func(name, value string, size int64)) error {
	r := newFieldReader(m.src)
	for {
		f, err := r.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the header: %w", err)
		}
		value := ""
		if f.raw != nil {
			value = f.value()
		}
		each(f.name, value, f.size())
	}
}

// Body reads what follows the top header, as it stands.
func (m *Message) Body() io.Reader {
	return section(m.src, span{m.root.body, m.src.Size()})
}
