package rpcclient_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// The table of errors in docs/protocol.md and the one in the package's documentation say the same, of
// codes and outcomes that exist.
func TestErrorTablesAgree(t *testing.T) {
	read := func(path string) string {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	outcomes := map[string]bool{"NotSent": true, "Rejected": true, "MaybeExecuted": true, "Executed": true}
	row := regexp.MustCompile("^\\| `([A-Z_]+)` \\| ([^|]+) \\|")
	protocol := map[string]bool{}
	for line := range strings.Lines(read(filepath.Join("..", "..", "docs", "protocol.md"))) {
		if m := row.FindStringSubmatch(line); m != nil {
			for outcome := range strings.SplitSeq(strings.ReplaceAll(m[2], "*", ""), " or ") {
				protocol[m[1]+" "+strings.TrimSpace(outcome)] = true
			}
		}
	}
	_, tutorial, _ := strings.Cut(read("doc.go"), "What a requester finds by itself:\n")
	tutorial, _, _ = strings.Cut(tutorial, "// docs/protocol.md says")
	doc := map[string]bool{}
	code := ""
	for line := range strings.Lines(tutorial) {
		for _, word := range strings.Fields(strings.TrimPrefix(line, "//")) {
			word = strings.TrimSuffix(word, ",")
			if outcomes[word] {
				doc[code+" "+word] = true
			} else if strings.Contains(line, "\t"+word) && word == strings.ToUpper(word) {
				code = word
			} else {
				break
			}
		}
	}
	if len(doc) < 15 {
		t.Errorf("the package's documentation has %d pairs: %v", len(doc), doc)
	}
	for pair := range protocol {
		if !doc[pair] {
			t.Errorf("docs/protocol.md has %s, doc.go has not", pair)
		}
	}
	known := map[string]bool{}
	for _, c := range []rpcclient.Code{
		rpcclient.Canceled, rpcclient.Unknown, rpcclient.InvalidArgument, rpcclient.DeadlineExceeded, rpcclient.NotFound,
		rpcclient.AlreadyExists, rpcclient.PermissionDenied, rpcclient.ResourceExhausted, rpcclient.FailedPrecondition,
		rpcclient.Unimplemented, rpcclient.Internal, rpcclient.Unavailable, rpcclient.DataLoss,
	} {
		known[string(c)] = true
	}
	for pair := range doc {
		if !protocol[pair] {
			t.Errorf("doc.go has %s, docs/protocol.md has not", pair)
		}
		if name, _, _ := strings.Cut(pair, " "); !known[name] {
			t.Errorf("doc.go has a code %s", name)
		}
	}
}
