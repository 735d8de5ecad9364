package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// process is what /proc tells of one.
type process struct {
	parent int
	cpu    time.Duration // user and system time, with that of the children that it has waited for
}

// ticks of user and system time are 1/100 s on every Linux (USER_HZ).
const tick = 10 * time.Millisecond

// processes reads all that there are now.
func processes() map[int]process {
	found := map[int]process{}
	dirs, _ := filepath.Glob("/proc/[0-9]*") // the pattern is right
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, "stat"))
		if err != nil {
			continue // it has ended
		}
		// The name is in parentheses and may hold anything; behind it come state, ppid, ... (proc(5)).
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		number := func(i int) int { n, _ := strconv.Atoi(string(fields[i])); return n }
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || len(fields) < 15 {
			continue
		}
		found[pid] = process{parent: number(1), cpu: time.Duration(number(11)+number(12)+number(13)+number(14)) * tick}
	}
	return found
}

// below tells whether a process is root or descends from it.
func below(all map[int]process, pid, root int) bool {
	for pid > 1 {
		if pid == root {
			return true
		}
		pid = all[pid].parent
	}
	return false
}

// processGroup is a part of a system, by the processes at the root of it.
type processGroup struct {
	name  string
	roots []int
}

func (g processGroup) members(all map[int]process) []int {
	var members []int
	for pid := range all {
		for _, root := range g.roots {
			if below(all, pid, root) {
				members = append(members, pid)
			}
		}
	}
	return members
}

// cpu is what the group has used so far. What a child used counts as its parent's once that has waited for it, so
// nothing is missed nor counted twice.
func (g processGroup) cpu(all map[int]process) time.Duration {
	var sum time.Duration
	for _, pid := range g.members(all) {
		sum += all[pid].cpu
	}
	return sum
}

// pss is the group's memory in MiB, with shared pages divided among those who share them.
func (g processGroup) pss(all map[int]process) float64 {
	sum := 0
	for _, pid := range g.members(all) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			if value, ok := strings.CutPrefix(line, "Pss:"); ok {
				kibibytes, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
				sum += kibibytes
			}
		}
	}
	return float64(sum) / 1024
}

// pssInterval is how often memory is looked at.
const pssInterval = 100 * time.Millisecond

// memoryWatch samples the memory of groups until it is stopped, and keeps the sample with the highest sum.
type memoryWatch struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	parts  []float64 // of the highest sample, in MiB
}

func watchMemory(ctx context.Context, groups []processGroup) *memoryWatch {
	ctx, cancel := context.WithCancel(ctx)
	w := &memoryWatch{cancel: cancel}
	w.done.Go(func() {
		ticker := time.NewTicker(pssInterval)
		defer ticker.Stop()
		for ctx.Err() == nil {
			all := processes()
			var parts []float64
			for _, g := range groups {
				parts = append(parts, g.pss(all))
			}
			if sum(parts) > sum(w.parts) {
				w.parts = parts
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
			}
		}
	})
	return w
}

func (w *memoryWatch) stop() []float64 {
	w.cancel()
	w.done.Wait()
	return w.parts
}

func sum(values []float64) float64 {
	total := 0.0
	for _, v := range values {
		total += v
	}
	return total
}

// cpuOf returns what each group has used so far.
func cpuOf(groups []processGroup) []time.Duration {
	all := processes()
	used := make([]time.Duration, len(groups))
	for i, g := range groups {
		used[i] = g.cpu(all)
	}
	return used
}

// whenQuiet waits until the groups do next to nothing, for what they do after the last reply belongs to the mails too.
func whenQuiet(groups []processGroup) []time.Duration {
	const looks, apart = 100, 200 * time.Millisecond
	before := cpuOf(groups)
	for range looks {
		time.Sleep(apart)
		now, quiet := cpuOf(groups), true
		for i := range now {
			quiet = quiet && now[i]-before[i] <= 2*tick
		}
		if before = now; quiet {
			break
		}
	}
	return before
}

// children returns the processes that start runs as children of this one.
func children(start func()) []int {
	own := func() map[int]bool {
		pids := map[int]bool{}
		for pid, p := range processes() {
			if p.parent == os.Getpid() {
				pids[pid] = true
			}
		}
		return pids
	}
	before := own()
	start()
	var pids []int
	for pid := range own() {
		if !before[pid] {
			pids = append(pids, pid)
		}
	}
	return pids
}

// machine describes where the numbers are from.
func machine() string {
	kernel, fs := "?", "?"
	if text, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		kernel = strings.TrimSpace(string(text))
	}
	model := "?"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)
			}
		}
	}
	if text, err := os.ReadFile("/proc/self/mountinfo"); err == nil {
		fs = mountOf(string(text), os.TempDir())
	}
	var info syscall.Sysinfo_t
	memory := uint64(0)
	if syscall.Sysinfo(&info) == nil {
		memory = info.Totalram * uint64(info.Unit) >> 20
	}
	return fmt.Sprintf("%d cores (%s), %d MiB of memory, Linux %s, %s on %s, %s, %s", runtime.NumCPU(), model, memory, kernel,
		os.TempDir(), fs, runtime.Version(), time.Now().UTC().Format(time.DateOnly))
}

// mountOf finds the file system of a path in the text of /proc/PID/mountinfo (proc(5)).
func mountOf(mounts, path string) string {
	longest, found := "", "?"
	for line := range strings.Lines(mounts) {
		left, right, ok := strings.Cut(line, " - ")
		fields, kinds := strings.Fields(left), strings.Fields(right)
		if !ok || len(fields) < 5 || len(kinds) < 2 {
			continue
		}
		point := fields[4]
		inside := point == "/" || path == point || strings.HasPrefix(path, point+"/")
		if inside && len(point) >= len(longest) {
			longest, found = point, kinds[0]
		}
	}
	return found
}

// TestProcessGroupCountsChildren: what a child used counts while it runs and after it has ended.
func TestProcessGroupCountsChildren(t *testing.T) {
	all := map[int]process{1: {cpu: 99}, 10: {parent: 1, cpu: 5}, 11: {parent: 10, cpu: 7}, 12: {parent: 11, cpu: 1}, 20: {parent: 1, cpu: 50}}
	if got := (processGroup{roots: []int{10}}).cpu(all); got != 13 {
		t.Errorf("a tree used %d, want 13", got)
	}
	own := processGroup{roots: []int{os.Getpid()}}
	before := own.cpu(processes())
	cmd := exec.Command("sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	if used := own.cpu(processes()) - before; used < cmd.ProcessState.UserTime()/2 {
		t.Errorf("a child that used %s counts as %s", cmd.ProcessState.UserTime(), used)
	}
	if own.pss(processes()) < 1 {
		t.Error("no memory")
	}
	if got := mountOf("1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 8:2 / /tmp rw - tmpfs t rw\n3 1 8:2 / /tmpx rw - xfs t rw\n", "/tmp/x"); got != "tmpfs" {
		t.Errorf("the file system is %q", got)
	}
}
