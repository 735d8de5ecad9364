package rewrite

import "io"

// Meter says of a mail that passes through it what a next hop must know.
type Meter struct {
	meter
	line int  // octets in the current line of the header, CR not counted
	last bool // the line that was measured last is the empty one
}

// NewMeter returns a Meter that writes on to w.
func NewMeter(w io.Writer) *Meter { return &Meter{meter: meter{w: w, inHeader: true}} }

// Written returns what is known so far.
func (m *Meter) Written() Written { return m.written }

// Write writes p on.
func (m *Meter) Write(p []byte) (int, error) {
	total := 0
	for m.inHeader && len(p) > 0 {
		n, err := m.meter.Write(p[:m.header(p)])
		total += n
		if err != nil {
			return total, err
		}
		p = p[n:]
		m.inHeader = !m.last
	}
	n, err := m.meter.Write(p)
	return total + n, err
}

// header returns how many octets of p belong to one line of the header; an empty line ends it.
func (m *Meter) header(p []byte) int {
	for i, c := range p {
		switch c {
		case '\r':
		case '\n':
			m.last = m.line == 0
			m.line = 0
			return i + 1
		default:
			m.line++
		}
	}
	return len(p)
}
