package gateway

// Part is what policy may know of one MIME entity.
type Part struct {
	// Path is the IMAP-style number of the part: "1", "2.1".
	Path string
	// Type is the lower-cased media type, "text/plain" where none is given (RFC 2045 section 5.2).
	Type string
	// Disposition is the lower-cased Content-Disposition, or "".
	Disposition string
	// Filename is the decoded name from Content-Disposition or Content-Type, or "".
	Filename Secret
	// Encoding is the lower-cased Content-Transfer-Encoding, or "".
	Encoding string
	// Size is the size of the encoded body in bytes.
	Size int64
	// InReport tells that the part is a direct child of a multipart/report.
	InReport bool
}

// Verdict is what becomes of a part.
type Verdict string

// The verdicts.
const (
	Keep   Verdict = "keep"   // it stays in the mail, byte for byte
	Seal   Verdict = "seal"   // it is taken out and sealed
	Reject Verdict = "reject" // the mail is refused for good
	Defer  Verdict = "defer"  // the mail is refused for now
)
