//go:build !linux

package blob

import (
	"errors"
	"os"
)

func haveAnonymous(string) bool { return false }

func openAnonymous(string) (*os.File, error) { return nil, errors.ErrUnsupported }

func linkAnonymous(*os.File, string) error { return errors.ErrUnsupported }

func startWriteback(*os.File) {}
