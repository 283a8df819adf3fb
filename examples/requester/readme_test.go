package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/hack/freeport"
)

// What examples/README.md tells to type runs both programs, and they end well.
func TestReadmeRunsTheExamples(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs programs")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("the commands need curl")
	}
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, commands, found := strings.Cut(string(text), "```sh\n")
	commands, _, ended := strings.Cut(commands, "```")
	if !found || !ended {
		t.Fatal("the README has no commands")
	}
	port, err := freeport.Loopback()
	if err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	printed := filepath.Join(folder, "printed")
	enough := `until grep -q '"caller":.*"ok":[1-9]' ` + printed + ` && grep -q '"pod":.*"served":[1-9]' ` + printed + `; do sleep 0.1; done`
	if strings.Count(commands, "sleep 5\n") != 1 {
		t.Fatal("the README does not wait a while")
	}
	commands = strings.NewReplacer("bin/", folder+string(filepath.Separator), "4566", strconv.Itoa(port), "sleep 5\n", enough+"\n").Replace(commands)
	out, err := os.Create(printed)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-eu", "-c", "trap 'kill $sqs 2>/dev/null || true' EXIT\n"+commands)
	shell.Dir = "../.."
	shell.WaitDelay = 10 * time.Second
	var errs bytes.Buffer
	shell.Stdout, shell.Stderr = out, &errs
	if err := shell.Run(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	lines, err := os.ReadFile(printed)
	if err != nil {
		t.Fatal(err)
	}
	var requester, responder struct {
		Final             bool
		OK, Failed, Wrong int64
		Served            int64
		Caller, Pod       string
	}
	for line := range strings.Lines(string(lines)) {
		into := &requester
		if strings.HasPrefix(line, `{"pod":`) {
			into = &responder
		}
		if strings.Contains(line, `"final":true`) {
			if err := json.Unmarshal([]byte(line), into); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !requester.Final || requester.OK == 0 || requester.Failed != 0 || requester.Wrong != 0 || !responder.Final || responder.Served < requester.OK {
		t.Errorf("the requester's last line: %+v, the responder's: %+v\n%s", requester, responder, errs.String())
	}
}
