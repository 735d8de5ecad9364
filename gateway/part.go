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
	// InReport tells that the part is in a multipart/report, at any depth, but in no message forwarded there.
	InReport bool
	// InMacFile tells that the part is a direct child of a multipart/appledouble (RFC 1740): one half of a file.
	InMacFile bool
	// Unclear tells that a malformed field may give a name to other readers.
	Unclear bool
	// Walked tells of a forwarded message whose own parts are judged one by one, if it stays.
	Walked bool
	// Content is the media type that the first decoded bytes tell, where that is no text; known only of parts that would
	// stay without it.
	Content string
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
