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
