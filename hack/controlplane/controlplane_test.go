package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// The pins of this repository must be readable.
func TestReadPinsOfTheRepository(t *testing.T) {
	src, err := findModules()
	if err != nil {
		t.Fatal(err)
	}
	w, err := readPins(src)
	if err != nil {
		t.Fatal(err)
	}
	if w.kubernetes == "" || w.etcd == "" || w.digest == "" || w.minor() == "" {
		t.Errorf("incomplete pins: %+v", w)
	}
}

func TestReadPinsRefusesAModuleWithoutThem(t *testing.T) {
	src := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module m\n\nrequire k8s.io/kubernetes v1.36.3\n", "go.sum": ""} {
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if w, err := readPins(src); err == nil {
		t.Errorf("no error for a module without etcd: %+v", w)
	}
}

// A program counts as present only when it was installed whole and in the wanted version.
func TestMissing(t *testing.T) {
	want := pins{kubernetes: "v1.36.3", etcd: "v3.6.8", digest: "d"}
	dir := t.TempDir()
	place := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	if n := len(missing(dir, want)); n != len(programs) {
		t.Fatalf("%d missing from an empty folder, want %d", n, len(programs))
	}
	for _, p := range programs {
		if err := install(place("partial", "x"), dir, want, p); err != nil {
			t.Fatal(err)
		}
	}
	if m := missing(dir, want); len(m) != 0 {
		t.Fatalf("missing after all were installed: %v", m)
	}

	newer := want
	newer.digest = "e"
	if n := len(missing(dir, newer)); n != len(programs) {
		t.Errorf("%d missing after the pins changed, want %d", n, len(programs))
	}
	if err := os.Remove(filepath.Join(dir, "kubectl")); err != nil {
		t.Fatal(err)
	}
	if m := missing(dir, want); len(m) != 1 || m[0].name != "kubectl" {
		t.Errorf("missing %v, want kubectl alone", m)
	}
	place(".etcd.version", "etcd")
	if m := missing(dir, want); len(m) != 2 || m[0].name != "etcd" {
		t.Errorf("missing %v, want etcd and kubectl", m)
	}
}

func TestInstallAllTakesWhatIsThere(t *testing.T) {
	want := pins{kubernetes: "v1.36.3", etcd: "v3.6.8", digest: "d"}
	dir, from := t.TempDir(), t.TempDir()
	for _, name := range []string{"etcd", "kubectl", "kube-scheduler"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(name), 0o500); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(from, 0o500); err != nil {
		t.Fatal(err)
	}
	if err := installAll(from, dir, want); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range missing(dir, want) {
		names = append(names, p.name)
	}
	// kube-scheduler is not one of those that setup-envtest offers.
	if len(names) != 3 || names[0] != "kube-apiserver" || names[1] != "kube-controller-manager" || names[2] != "kube-scheduler" {
		t.Errorf("missing %v", names)
	}
}

func TestLockExcludesAndEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := lock(ctx, dir); err == nil {
		t.Fatal("locked twice")
	}
	unlock()
	again, err := lock(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
