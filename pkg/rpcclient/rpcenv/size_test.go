package rpcenv_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// What calling costs a program: the difference between one that only calls, in an injected pod, and one that
// only uses the SDK and its configuration. Both are in testdata.
func TestLinkedSize(t *testing.T) {
	if testing.Short() {
		t.Skip("links two programs")
	}
	size := func(program string) int64 {
		out := filepath.Join(t.TempDir(), program)
		build := exec.CommandContext(t.Context(), "go", "build", "-o", out, "./testdata/"+program)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if text, err := build.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		info, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	const limit = 1_500_000
	caller, sdk := size("caller"), size("sdkonly")
	t.Logf("calls: %d bytes; SDK and configuration only: %d bytes; more: %d", caller, sdk, caller-sdk)
	if caller-sdk > limit {
		t.Errorf("a program that calls is %d bytes larger than one that uses the SDK alone; at most %d", caller-sdk, limit)
	}
}
