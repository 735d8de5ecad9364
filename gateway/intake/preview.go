package intake

import (
	"context"
	"fmt"
	"io"
	"time"

	"sealpost/gateway"
	"sealpost/gateway/policy"
	"sealpost/gateway/rewrite"
)

// Preview is what would become of a mail.
type Preview struct {
	Parts []PreviewPart
	// Files are what would be sealed, each under its exact name: show them to the mail's owner only.
	Files []rewrite.File
	// Dropped is how many Authentication-Results fields were forged in our name and would not go on.
	Dropped int
	// Findings are the limits of Salesforce that the mail which would go on passes. Hold is why it would be held; empty: it would not.
	Findings []policy.Finding
	Hold     string
	// Imitates tells that the mail's text looks like a notice of ours.
	Imitates bool
	// Personal is how much personal data each detector found in texts and subject.
	Personal map[string]int

	transaction *transaction
	message     *rewrite.Message
}

// PreviewPart is one part and its verdict. Name is a file name: show it to the mail's owner only.
type PreviewPart struct {
	Path, Type, Name string
	Verdict          gateway.Verdict
	Size             int64 // encoded, in bytes
	Inside           int   // how many files are taken out of its text, which stays
	Why              string
}

// NewPreview judges a mail as Accept does, by the same code, and stores nothing. The mail must outlive the Preview.
func NewPreview(ctx context.Context, options Options, envelope gateway.Envelope, mail Mail) (*Preview, error) {
	in := New(options, nil, nil, nil)
	t := &transaction{Intake: in, envelope: envelope, started: time.Now(), deliveries: distinct(envelope.Recipients)}
	message, err := rewrite.Scan(mail, options.Limits)
	if err != nil {
		return nil, fmt.Errorf("scan the mail: %w", err)
	}
	if err := ctx.Err(); err != nil { // a large mail takes its time
		return nil, fmt.Errorf("look at the mail: %w", err)
	}
	if err := t.decide(message); err != nil {
		return nil, err
	}
	p := &Preview{
		Dropped: t.dropped, Findings: t.findings, Hold: t.deliveries[0].Hold, Imitates: t.plan.Imitates(), Personal: t.plan.Personal(),
		transaction: t, message: message,
	}
	for _, item := range t.plan.Items() {
		p.Files = append(p.Files, rewrite.File{Name: item.Name, Size: item.Size})
	}
	for _, leaf := range t.plan.Leaves() {
		part := PreviewPart{
			Path: leaf.Part.Path, Type: leaf.Part.Type, Name: leaf.Part.Filename.Reveal(), Verdict: gateway.Keep,
			Size: leaf.Part.Size, Inside: leaf.Inside, Why: leaf.Why,
		}
		if leaf.Sealed {
			part.Verdict = gateway.Seal
		}
		p.Parts = append(p.Parts, part)
	}
	return p, nil
}

// Whole reports whether the mail would be sealed as one file, and why.
func (p *Preview) Whole() (string, bool) { return p.transaction.plan.Whole() }

// Write writes the mail that would go on, with a link that opens nothing.
func (p *Preview) Write(w io.Writer) error {
	t := p.transaction
	if _, err := t.plan.Write(w, t.draft(p.message)); err != nil {
		return fmt.Errorf("write the mail that would go on: %w", err)
	}
	return nil
}
