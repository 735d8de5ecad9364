package blob

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// haveAnonymous reports whether files without a name can be made in dir and linked. Some file systems have
// none, and some sandboxes have no /proc.
func haveAnonymous(dir string) bool {
	f, err := openAnonymous(dir)
	if err != nil {
		return false
	}
	_, err = os.Stat(procName(f))
	return f.Close() == nil && err == nil
}

// openAnonymous opens a new file without a name in dir.
func openAnonymous(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	return os.NewFile(uintptr(fd), dir), nil
}

// linkAnonymous gives f the name path. Going by /proc, as open(2) has it, needs no capability.
func linkAnonymous(f *os.File, path string) error {
	name := procName(f)
	if err := unix.Linkat(unix.AT_FDCWD, name, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW); err != nil {
		return &os.LinkError{Op: "link", Old: name, New: path, Err: err}
	}
	return nil
}

func procName(f *os.File) string { return "/proc/self/fd/" + strconv.Itoa(int(f.Fd())) }

// startWriteback lets the kernel begin to write f, so that several files that are synced soon share one journal commit.
// It promises nothing, so what fails here fails again in Sync.
func startWriteback(f *os.File) {
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
