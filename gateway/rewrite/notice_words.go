package rewrite

import (
	"fmt"
	"strings"
	"time"
)

// cutLead is what the notice tells where a page stays that Email-to-Case cuts.
const cutLead = "The formatted text of this mail is long and may be cut off at its end. All of it is also in message.html, in a secure place."

// phrases is the notice in one language. A %s or %d stands for what changes.
type phrases struct {
	lang                                string // the tag of RFC 5646
	file, files                         string // files has a %d
	text, personal, ambiguous           string
	disowned, unproven, virus, tooLarge string
	cut, masked, signed                 string // of what stays
	imitated, trust, open, until, more  string
	months                              [12]string
	day                                 string // of the day, the month's name, the year
	point                               string // before decimals
	byte, bytes                         string
	marks                               []string // each sentence of what a mail tells first has one of them
}

// phrasesIn returns the notice in a language: "de", or else English.
func phrasesIn(language string) phrases {
	if language == "de" {
		return german()
	}
	return english()
}

func english() phrases {
	return phrases{
		lang:      "en",
		file:      "1 file was taken out of this mail and moved to a secure place.",
		files:     "%d files were taken out of this mail and moved to a secure place.",
		text:      "The text of this mail is too long to be shown here, so it was moved to a secure place.",
		personal:  "The text of this mail holds personal data, so it was moved to a secure place.",
		ambiguous: "This mail could not be taken apart safely, so all of it was moved to a secure place.",
		disowned:  "The domain of this mail's sender says that it did not send it: it may be forged. All of it was moved to a secure place.",
		unproven:  "It could not be checked who sent this mail: it may be forged. All of it was moved to a secure place.",
		virus:     "A virus scanner found something in this mail. Open it only if you must. All of it was moved to a secure place.",
		tooLarge:  "This mail is too large for Salesforce, so all of it was moved to a secure place.",
		cut:       cutLead,
		masked:    "Numbers in the text of this mail were masked. The text as it came is in a secure place.",
		signed:    "This mail was signed. Its signature went with the files: signed-message.eml is the mail as it came.",
		imitated:  "This mail also contained text that looks like this notice; it is not from us.",
		trust:     "Trust the list on the page behind the link, not this text: anyone can imitate it.",
		open:      "To open, follow this link and log in:",
		until:     "Available until %s.",
		more:      "and %d more",
		months: [12]string{"January", "February", "March", "April", "May", "June",
			"July", "August", "September", "October", "November", "December"},
		day:   "%d %s %d",
		point: ".",
		byte:  "byte",
		bytes: "bytes",
		marks: []string{
			"taken out of this mail and moved to a secure place",
			"so it was moved to a secure place",
			"all of it was moved to a secure place",
			"all of it is also in message.html, in a secure place",
			"trust the list on the page behind the link, not this text",
		},
	}
}

func german() phrases {
	return phrases{
		lang:      "de",
		file:      "1 Datei wurde aus dieser E-Mail genommen und an einen sicheren Ort gelegt.",
		files:     "%d Dateien wurden aus dieser E-Mail genommen und an einen sicheren Ort gelegt.",
		text:      "Der Text dieser E-Mail ist zu lang für die Anzeige und wurde an einen sicheren Ort gelegt.",
		personal:  "Der Text dieser E-Mail enthält personenbezogene Daten und wurde an einen sicheren Ort gelegt.",
		ambiguous: "Diese E-Mail ließ sich nicht sicher zerlegen und wurde als Ganzes an einen sicheren Ort gelegt.",
		disowned:  "Laut der Domain des Absenders stammt diese E-Mail nicht von dort: Sie kann gefälscht sein. Sie wurde als Ganzes an einen sicheren Ort gelegt.",
		unproven:  "Es ließ sich nicht prüfen, wer diese E-Mail gesendet hat: Sie kann gefälscht sein. Sie wurde als Ganzes an einen sicheren Ort gelegt.",
		virus:     "Ein Virenscanner hat etwas in dieser E-Mail gefunden. Öffnen Sie sie nur, wenn es sein muss. Sie wurde als Ganzes an einen sicheren Ort gelegt.",
		tooLarge:  "Diese E-Mail ist zu groß für Salesforce und wurde als Ganzes an einen sicheren Ort gelegt.",
		cut:       "Der formatierte Text dieser E-Mail ist lang und am Ende vielleicht abgeschnitten. Vollständig liegt er auch in message.html, an einem sicheren Ort.",
		masked:    "Nummern im Text dieser E-Mail wurden unkenntlich gemacht. Der Text, wie er ankam, liegt an einem sicheren Ort.",
		signed:    "Diese E-Mail war signiert. Die Signatur liegt bei den Dateien: signed-message.eml ist die E-Mail, wie sie ankam.",
		imitated:  "Diese E-Mail enthielt auch Text, der wie dieser Hinweis aussieht; er stammt nicht von uns.",
		trust:     "Verlassen Sie sich auf die Liste auf der Seite hinter dem Link, nicht auf diesen Text: Ihn kann jeder nachahmen.",
		open:      "Zum Öffnen folgen Sie diesem Link und melden sich an:",
		until:     "Verfügbar bis %s.",
		more:      "und %d weitere",
		months: [12]string{"Januar", "Februar", "März", "April", "Mai", "Juni",
			"Juli", "August", "September", "Oktober", "November", "Dezember"},
		day:   "%d. %s %d",
		point: ",",
		byte:  "Byte",
		bytes: "Bytes",
		marks: []string{
			"aus dieser e-mail genommen und an einen sicheren ort gelegt",
			"und wurde an einen sicheren ort gelegt",
			"wurde als ganzes an einen sicheren ort gelegt",
			"vollständig liegt er auch in message.html, an einem sicheren ort",
			"auf die liste auf der seite hinter dem link, nicht auf diesen text",
		},
	}
}

// lead says what was taken out.
func (w phrases) lead(files int, about kind) string {
	switch {
	case about == aboutAmbiguous:
		return w.ambiguous
	case about == aboutDisowned:
		return w.disowned
	case about == aboutUnproven:
		return w.unproven
	case about == aboutVirus:
		return w.virus
	case about == aboutTooLarge:
		return w.tooLarge
	case about == aboutText && files == 1:
		return w.text
	case about == aboutPersonal && files <= 2: // the text, and the same as a page
		return w.personal
	case files == 1:
		return w.file
	}
	return fmt.Sprintf(w.files, files)
}

// date is a day, in UTC.
func (w phrases) date(t time.Time) string {
	year, month, day := t.UTC().Date()
	return fmt.Sprintf(w.day, day, w.months[month-1], year)
}

// size is a size as people say it.
func (w phrases) size(size int64) string {
	switch {
	case size == 1:
		return "1 " + w.byte
	case size < 1000:
		return fmt.Sprintf("%d %s", size, w.bytes)
	}
	n, unit := float64(size)/1000, "kB"
	for _, next := range []string{"MB", "GB", "TB"} {
		if n < 999.5 {
			break
		}
		n, unit = n/1000, next
	}
	if n < 9.95 {
		return strings.Replace(fmt.Sprintf("%.1f %s", n, unit), ".", w.point, 1)
	}
	return fmt.Sprintf("%.0f %s", n, unit)
}
