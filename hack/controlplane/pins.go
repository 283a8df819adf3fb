package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// program is one binary of the control plane.
type program struct {
	name string
	pkg  string
	// offered: setup-envtest's archive has it.
	offered bool
}

var programs = []program{
	{"etcd", "go.etcd.io/etcd/server/v3", true},
	{"kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver", true},
	{"kubectl", "k8s.io/kubernetes/cmd/kubectl", true},
	{"kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager", false},
	{"kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler", false},
}

// recipe is part of every stamp: change it when the way of building changes.
const recipe = "1"

// pins says which versions are wanted.
type pins struct {
	kubernetes string // "v1.36.3"
	etcd       string // "v3.6.8"
	digest     string // of modules/go.mod and go.sum
}

// version is the pinned version of one program.
func (w pins) version(p program) string {
	if p.name == "etcd" {
		return w.etcd
	}
	return w.kubernetes
}

// minor is the Kubernetes release without its patch: "1.36".
func (w pins) minor() string {
	v := strings.Split(strings.TrimPrefix(w.kubernetes, "v"), ".")
	return strings.Join(v[:2], ".")
}

// stamp is what the stamp file of a program holds while the program is up to date.
func (w pins) stamp(p program) string {
	return fmt.Sprintf("%s %s recipe %s %s\n", p.name, w.version(p), recipe, w.digest)
}

// findModules looks for hack/controlplane/modules here and in the folders above.
func findModules() (string, error) {
	d, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		src := filepath.Join(d, "hack", "controlplane", "modules")
		if _, err := os.Stat(filepath.Join(src, "go.mod")); err == nil {
			return src, nil
		}
		up := filepath.Dir(d)
		if up == d {
			return "", errors.New("hack/controlplane/modules not found: run this inside the repository")
		}
		d = up
	}
}

var requirement = regexp.MustCompile(`(?m)^\s*(?:require\s+)?(k8s\.io/kubernetes|go\.etcd\.io/etcd/server/v3)\s+(v\d+\.\d+\.\d+)\s*$`)

// readPins reads the wanted versions from src/go.mod.
func readPins(src string) (pins, error) {
	mod, err := os.ReadFile(filepath.Join(src, "go.mod"))
	if err != nil {
		return pins{}, err
	}
	sum, err := os.ReadFile(filepath.Join(src, "go.sum"))
	if err != nil {
		return pins{}, err
	}
	digest := sha256.Sum256(append(mod, sum...))
	w := pins{digest: hex.EncodeToString(digest[:8])}
	for _, m := range requirement.FindAllStringSubmatch(string(mod), -1) {
		if m[1] == "k8s.io/kubernetes" {
			w.kubernetes = m[2]
		} else {
			w.etcd = m[2]
		}
	}
	if w.kubernetes == "" || w.etcd == "" {
		return pins{}, fmt.Errorf("%s/go.mod does not require both k8s.io/kubernetes and go.etcd.io/etcd/server/v3", src)
	}
	return w, nil
}

// missing returns the programs that dir does not hold in the wanted version.
func missing(dir string, want pins) []program {
	var out []program
	for _, p := range programs {
		got, err := os.ReadFile(stampFile(dir, p))
		fi, statErr := os.Stat(filepath.Join(dir, p.name))
		if err != nil || statErr != nil || string(got) != want.stamp(p) || fi.Mode()&0o111 == 0 {
			out = append(out, p)
		}
	}
	return out
}

func anyDownloadable(ps []program) bool {
	for _, p := range ps {
		if p.offered {
			return true
		}
	}
	return false
}

func stampFile(dir string, p program) string {
	return filepath.Join(dir, "."+p.name+".version")
}

// install moves a finished file to its place, then stamps it. Killed between the two, the next run
// replaces the program; it never believes half a file.
func install(file, dir string, want pins, p program) error {
	if err := os.Chmod(file, 0o755); err != nil {
		return err
	}
	if err := os.Remove(stampFile(dir, p)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(file, filepath.Join(dir, p.name)); err != nil {
		return err
	}
	return os.WriteFile(stampFile(dir, p), []byte(want.stamp(p)), 0o644)
}
