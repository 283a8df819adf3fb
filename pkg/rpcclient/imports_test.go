package rpcclient_test

import (
	"os/exec"
	"strings"
	"testing"
)

// What a workload links: the standard library and the SQS SDK, nothing of Kubernetes or OpenTelemetry.
func TestImportClosure(t *testing.T) {
	if testing.Short() {
		t.Skip("lists packages with the go command")
	}
	for pkg, allowed := range map[string][]string{
		".": {
			"github.com/replyqueue/replyqueue/pkg/rpcclient",
			"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go",
		},
		"./injected": {"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"},
		"./virtualqueue": {
			"github.com/replyqueue/replyqueue/pkg/rpcclient",
			"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go",
		},
		"./rpcproto": {
			"github.com/replyqueue/replyqueue/pkg/rpcclient", "google.golang.org/protobuf",
			"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go",
		},
		"./rpcenv": {
			"github.com/replyqueue/replyqueue/pkg/rpcclient",
			"github.com/aws/aws-sdk-go-v2", "github.com/aws/smithy-go",
		},
	} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", pkg).Output()
		if err != nil {
			t.Fatal(err)
		}
		for path := range strings.Lines(string(out)) {
			path = strings.TrimSpace(path)
			ok := false
			for _, a := range allowed {
				ok = ok || path == a || strings.HasPrefix(path, a+"/")
			}
			if path != "" && !ok {
				t.Errorf("%s links %s", pkg, path)
			}
		}
	}
	// The core reads no AWS configuration: that is rpcenv's.
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, banned := range []string{"github.com/aws/aws-sdk-go-v2/config", "github.com/aws/aws-sdk-go-v2/service/sts"} {
		if strings.Contains(string(out), banned+"\n") {
			t.Errorf("the core links %s", banned)
		}
	}
}
