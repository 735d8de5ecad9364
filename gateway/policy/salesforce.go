package policy

import "fmt"

// MaxSize is the most bytes of a mail that Email-to-Case takes.
const MaxSize = 35_000_000

// Outgoing is what Email-to-Case has limits for, of the mail as it would go on, in bytes, which are at least as many
// as characters.
type Outgoing struct {
	Size                          int64
	Header, Subject, From, To, Cc int64
	// FromLost tells that the mail has an author, who is too long to go on.
	FromLost bool
}

// Finding is a limit of Email-to-Case that a mail passes.
type Finding struct {
	Field        string
	Value, Limit int64
	// Message says it to an admin.
	Message string
	// Whole is why the mail is sealed whole, since the short mail is within this limit; empty: that is no remedy.
	Whole string
}

// Salesforce returns the limits because of which Email-to-Case would bounce the mail: 35 MB in all, 32,000 characters
// of header by the stricter of its two pages, 4,000 of Subject, To and Cc, 3,000 of From. A field alone is no reason to
// seal the mail whole, since the short mail would lack that field: an admin decides.
func Salesforce(m Outgoing) []Finding {
	var found []Finding
	for _, f := range []Finding{
		{Field: "size", Value: m.Size, Limit: MaxSize, Whole: "what would go on is larger than Salesforce takes"},
		{Field: "header", Value: m.Header, Limit: 32000, Whole: "its header is longer than Salesforce takes"},
		{Field: "Subject", Value: m.Subject, Limit: 4000},
		{Field: "From", Value: m.From, Limit: 3000},
		{Field: "To", Value: m.To, Limit: 4000},
		{Field: "Cc", Value: m.Cc, Limit: 4000},
	} {
		if f.Value > f.Limit {
			f.Message = fmt.Sprintf("Salesforce would bounce it: its %s has %d bytes, the limit is %d", f.Field, f.Value, f.Limit)
			found = append(found, f)
		}
	}
	if m.FromLost {
		found = append(found, Finding{Field: "From", Message: "Salesforce could not tell whom it is from: its From is too long to go on"})
	}
	return found
}
