package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxName is the longest file name in bytes that common file systems take, less room for a number.
const maxName = 240

// safeName makes a sender's file name safe to create and to print: no path, no control or bidirectional
// character, no name that means something to a file system. The extension stays.
func safeName(name string) string {
	name = strings.ToValidUTF8(name, "_")
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsControl(r), unicode.Is(unicode.Cf, r), strings.ContainsRune(`<>:"|?*`, r):
			return '_'
		case unicode.IsSpace(r):
			return ' '
		}
		return r
	}, name)
	name = strings.Trim(name, ". ")
	stem, _, _ := strings.Cut(strings.ToUpper(name), ".")
	if name == "" || reservedName(stem) {
		name = "_" + name
	}
	return shorten(name)
}

// reservedName reports whether Windows keeps the name for a device.
func reservedName(stem string) bool {
	switch stem {
	case "CON", "PRN", "AUX", "NUL":
		return true
	}
	return len(stem) == 4 && (strings.HasPrefix(stem, "COM") || strings.HasPrefix(stem, "LPT")) && stem[3] >= '0' && stem[3] <= '9'
}

// shorten cuts the stem of a name that is too long, at a rune.
func shorten(name string) string {
	if len(name) <= maxName {
		return name
	}
	extension := filepath.Ext(name)
	if len(extension) > 20 {
		extension = ""
	}
	cut := maxName - len(extension)
	for !utf8.RuneStart(name[cut]) {
		cut--
	}
	return name[:cut] + extension
}

// linkNew gives the file at from a name in dir that is not taken yet: name, else "name (2)" and so on.
func linkNew(from, dir, name string) (string, error) {
	extension := filepath.Ext(name)
	stem := strings.TrimSuffix(name, extension)
	for number := 1; ; number++ {
		path := filepath.Join(dir, name)
		if number > 1 {
			path = filepath.Join(dir, fmt.Sprintf("%s (%d)%s", stem, number, extension))
		}
		err := os.Link(from, path)
		if err == nil {
			return path, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return "", fmt.Errorf("name the file: %w", err)
		}
	}
}
