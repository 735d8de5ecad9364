package rewrite

import (
	"errors"
	"fmt"
	"io"
	"mime"

	"sealpost/gateway/rewrite/tnef"
)

const (
	// maxUnpacked is the most files that are taken out of the TNEF files of one mail.
	maxUnpacked = 1000
	// maxReread bounds the work of reading a TNEF file once for each file in it, in bytes.
	maxReread = 2 << 30
)

// unpackLeaf adds the files in q to the items, behind its own item, if it is TNEF.
func (p *Plan) unpackLeaf(q *part, item Item) error {
	head, err := firstBytes(p.msg.src, q)
	if err != nil || !tnef.Is(head) {
		return err
	}
	return p.unpack(item)
}

// unpack adds the files in item, if it is TNEF. One that is damaged, or over the limits, is sealed as it stands and no
// more: its own item is there already.
func (p *Plan) unpack(item Item) error {
	head, err := readHead(item.Open(), min(item.Size, 4))
	if err != nil || !tnef.Is(head) {
		return err
	}
	files, err := tnef.Read(item.Open())
	switch {
	case errors.Is(err, tnef.ErrDamaged):
		return nil
	case err != nil:
		return fmt.Errorf("read a TNEF file: %w", err)
	case p.unpacked+len(files) > maxUnpacked, int64(len(files))*item.Size > maxReread:
		return nil
	}
	p.unpacked += len(files)
	for _, file := range files {
		if err := p.addUnpacked(item, file); err != nil {
			return err
		}
	}
	return nil
}

func (p *Plan) addUnpacked(container Item, file tnef.File) error {
	item := Item{Name: file.Name, Type: validType(file.Type), Size: file.Size, open: func() io.Reader { return file.Open(container.Open()) }}
	if item.Name == "" {
		var err error
		if item.Name, err = madeName(len(p.items)+1, item); err != nil {
			return err
		}
	}
	p.items = append(p.items, item)
	p.sealed++
	return nil
}

// validType returns the media type that a container declares for a file, without parameters.
func validType(declared string) string {
	typ, _, err := mime.ParseMediaType(declared)
	if err != nil {
		return "application/octet-stream"
	}
	return typ
}
