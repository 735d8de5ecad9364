package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"

	"sealpost/gateway"
)

// isTerminal reports whether a person can answer questions.
func (s streams) isTerminal() bool { return s.in != nil && term.IsTerminal(int(s.in.Fd())) }

// ask asks for a value and returns fallback for an empty answer.
func (s streams) ask(question, fallback string) (string, error) {
	if _, err := fmt.Fprintf(s.err, "%s [%s]: ", question, fallback); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(s.in).ReadString('\n')
	if answer := strings.TrimSpace(line); answer != "" || err != nil {
		return answer, err
	}
	return fallback, nil
}

// secret takes a secret from an environment variable, else asks for it on the terminal without an echo.
// twice asks again, as for a new password.
func (s streams) secret(variable, question string, twice bool) (gateway.Secret, error) {
	if value, ok := os.LookupEnv(variable); ok && value != "" {
		return gateway.NewSecret(value), nil
	}
	if !s.isTerminal() {
		return gateway.Secret{}, usageError{fmt.Sprintf("%s: set %s, or run this on a terminal", question, variable)}
	}
	value, err := s.readHidden(question)
	if err != nil || !twice {
		return value, err
	}
	again, err := s.readHidden(question + ", again")
	if err == nil && !again.Equal(value) {
		err = fmt.Errorf("%s: the two differ", question)
	}
	return value, err
}

func (s streams) readHidden(question string) (gateway.Secret, error) {
	if _, err := fmt.Fprintf(s.err, "%s: ", question); err != nil {
		return gateway.Secret{}, err
	}
	value, err := term.ReadPassword(int(s.in.Fd()))
	_, _ = fmt.Fprintln(s.err)
	if err != nil {
		return gateway.Secret{}, fmt.Errorf("read from the terminal: %w", err)
	}
	return gateway.NewSecret(string(value)), nil
}

// printable keeps what an outsider wrote from steering the terminal.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "?"))
}
