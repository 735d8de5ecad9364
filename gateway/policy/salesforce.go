package policy

import "fmt"

// Outgoing is what Email-to-Case has limits for, in bytes, which are at least as many as characters.
type Outgoing struct {
	Size                          int64
	Header, Subject, From, To, Cc int64
}

// FieldHeader is the Field of a finding about the whole header.
const FieldHeader = "header"

// Finding is a limit of Email-to-Case that a mail passes.
type Finding struct {
	Field        string
	Value, Limit int64
	// Message says it to an admin.
	Message string
}

// Salesforce returns the limits because of which Email-to-Case would bounce the mail: 35 MB in all, 32,000 characters
// of header by the stricter of its two pages, 4,000 of Subject, To and Cc, 3,000 of From.
func Salesforce(m Outgoing) []Finding {
	var found []Finding
	for _, f := range []Finding{
		{Field: "size", Value: m.Size, Limit: 35_000_000},
		{Field: FieldHeader, Value: m.Header, Limit: 32000},
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
	return found
}
