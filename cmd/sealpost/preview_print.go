package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"sealpost/gateway/intake"
)

// printPreview writes what becomes of each part, what is sealed, and what else changes.
func printPreview(w io.Writer, p *intake.Preview) error {
	var b strings.Builder
	if reason, whole := p.Whole(); whole {
		fmt.Fprintf(&b, "The mail would be sealed whole: %s.\n", reason)
	}
	if err := printParts(&b, p); err != nil {
		return err
	}
	if err := printFiles(&b, p); err != nil {
		return err
	}
	printNotes(&b, p)
	_, err := io.WriteString(w, b.String())
	return err
}

func printParts(w io.Writer, p *intake.Preview) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprint(table, "PART\tVERDICT\tTYPE\tSIZE\tNAME\tWHY\n")
	for _, part := range p.Parts {
		_, _ = fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", part.Path, part.Verdict, printable(part.Type), humanSize(part.Size),
			printable(part.Name), printable(why(part)))
	}
	return table.Flush()
}

func why(part intake.PreviewPart) string {
	switch part.Inside {
	case 0:
		return part.Why
	case 1:
		return part.Why + "; 1 file is taken out of it"
	}
	return fmt.Sprintf("%s; %d files are taken out of it", part.Why, part.Inside)
}

// printFiles shows what the package would hold, which is more than the parts where files lay within others.
func printFiles(w io.Writer, p *intake.Preview) error {
	if len(p.Files) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	_, _ = fmt.Fprint(table, "\nFILE\tSIZE\n")
	for _, file := range p.Files {
		_, _ = fmt.Fprintf(table, "%s\t%s\n", printable(file.Name), humanSize(file.Size))
	}
	return table.Flush()
}

func printNotes(b *strings.Builder, p *intake.Preview) {
	if p.Dropped > 0 {
		fmt.Fprintf(b, "removed: %d Authentication-Results fields, forged in our name\n", p.Dropped)
	}
	if len(p.Personal) > 0 {
		var counts []string
		for _, detector := range slices.Sorted(maps.Keys(p.Personal)) {
			counts = append(counts, fmt.Sprintf("%s %d", detector, p.Personal[detector]))
		}
		fmt.Fprintf(b, "personal data: %s\n", strings.Join(counts, ", "))
	}
	if p.Imitates {
		b.WriteString("The text imitates our notice, or links to our portal; the notice says that this is not from us\n")
	}
	for _, finding := range p.Findings {
		fmt.Fprintf(b, "Salesforce: %s\n", finding.Message)
	}
	if p.Hold != "" {
		fmt.Fprintf(b, "It would be held: %s\n", p.Hold)
	}
}
