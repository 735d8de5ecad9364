package gateway

// AuthResult is a result word of RFC 8601 section 2.7; empty where nothing was judged.
type AuthResult string

// The results.
const (
	AuthPass      AuthResult = "pass"
	AuthFail      AuthResult = "fail"
	AuthSoftFail  AuthResult = "softfail"
	AuthNeutral   AuthResult = "neutral"
	AuthNone      AuthResult = "none"
	AuthPolicy    AuthResult = "policy"
	AuthTempError AuthResult = "temperror"
	AuthPermError AuthResult = "permerror"
)

// Authentication is what is known of whether a mail's sender is who it says. It names nobody.
type Authentication struct {
	SPF, DKIM, DMARC AuthResult
	// DMARCPolicy is what the author's domain asks for when DMARC fails: none, quarantine or reject; empty: unknown.
	DMARCPolicy string
	// ByRelay tells that the results are those of a trusted relay in front of us.
	ByRelay bool

	// What follows decides what becomes of a mail, and is not remembered of it.

	// Advisory tells that a DMARC failure must not count against the mail: a relay in front of us does not say what
	// it found, or the relay's admin overruled it.
	Advisory bool
	// NoAuthor tells that not every author's domain can be read, so that DMARC cannot clear the mail.
	NoAuthor bool
	// ReturnPathProven tells that MAIL FROM is no other's address: SPF passed for its domain, or it is the author's, of one
	// organisation with an author that passed DMARC, or with a DKIM signature that verified.
	ReturnPathProven bool
}

// ScanVerdict is what the virus scanner said of a mail.
type ScanVerdict string

// The verdicts of a scan; empty where no scanner is configured.
const (
	ScanClean     ScanVerdict = "clean"
	ScanInfected  ScanVerdict = "infected"
	ScanUnscanned ScanVerdict = "unscanned" // the scanner was away, or the mail is larger than it takes
)

// Scan is the result of a virus scan.
type Scan struct {
	Verdict ScanVerdict
	// Signature is the scanner's name for what it found.
	Signature string
}
