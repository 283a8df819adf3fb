package queue

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/smithy-go"
)

// asked is what a real client of the SDK fails with when it asks an endpoint.
func asked(ctx context.Context, t *testing.T, endpoint string) error {
	t.Helper()
	api, _, _, err := connect(ctx, connection{region: "us-east-1", endpoint: endpoint}, "v")
	if err != nil {
		t.Fatal(err)
	}
	name := "x"
	_, err = api.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err == nil {
		t.Fatal("it answered")
	}
	return err
}

func TestExplainWhatTheSDKMakesOfTheNetwork(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "x")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "y")
	serve := func(handle http.HandlerFunc) string {
		server := httptest.NewServer(handle)
		t.Cleanup(server.Close)
		return server.URL
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	late := t.Context()
	expired, stop := context.WithTimeout(t.Context(), 0)
	defer stop()
	for what, c := range map[string]struct {
		ctx            context.Context
		endpoint, want string
	}{
		"nobody listens": {late, "http://" + closed.Addr().String(), "dial: connect: connection refused"},
		"no such host":   {late, "http://nosuchhost.invalid", "look up nosuchhost.invalid: "},
		"no answer":      {expired, "http://" + closed.Addr().String(), "no answer in time"},
		"hung up": {late, serve(func(w http.ResponseWriter, _ *http.Request) {
			panic(http.ErrAbortHandler)
		}), "the connection was closed before the answer was complete"},
		"cut off": {late, serve(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-amz-json-1.0")
			w.Header().Set("Content-Length", "100")
			_, _ = fmt.Fprint(w, `{"QueueUrl":`)
		}), "the connection was closed before the answer was complete"},
		"no AWS": {late, serve(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<html>busy</html>", http.StatusBadGateway)
		}), "502"},
	} {
		err := asked(c.ctx, t, c.endpoint)
		if got := Explain(err); !strings.Contains(got, c.want) || Classify(err) != Transient {
			t.Errorf("%s: %s, %q, want %q (%v)", what, Classify(err), got, c.want, err)
		}
	}
}

func TestExplainThatThereAreNoCredentials(t *testing.T) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"} {
		t.Setenv(name, "")
	}
	t.Setenv("HOME", t.TempDir())
	const endpoint = "http://127.0.0.1:1"
	for _, disabled := range []string{"true", "false"} {
		t.Setenv("AWS_EC2_METADATA_DISABLED", disabled)
		t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint)
		err := asked(t.Context(), t, endpoint)
		if got := Explain(err); Classify(err) != Denied || !strings.Contains(got, "no AWS credentials") {
			t.Errorf("%s: %q (%v)", Classify(err), got, err)
		}
	}
	t.Setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:1/credentials")
	err := asked(t.Context(), t, endpoint)
	if got := Explain(err); Classify(err) != Transient || !strings.Contains(got, "gets no AWS credentials: ") {
		t.Errorf("%s: %q (%v): their server may come back", Classify(err), got, err)
	}
}

func TestExplainWhatAnotherServiceSaidToSQS(t *testing.T) {
	t.Parallel()
	said := func(id string) string {
		return Explain(&smithy.GenericAPIError{Code: "KMS.AccessDeniedException", Message: "User: x is not authorized to perform: kms:GenerateDataKey (Service: AWSKMS; " +
			"Status Code: 400; Error Code: AccessDeniedException; Request ID: " + id + "; Proxy: null)"})
	}
	const want = "KMS.AccessDeniedException: User: x is not authorized to perform: kms:GenerateDataKey (Service: AWSKMS; " +
		"Status Code: 400; Error Code: AccessDeniedException; Proxy: null)"
	for _, id := range []string{"b284a4f4-e245-4843-96dc-0123456789ab", "00000000-e245-4843-96dc-0123456789ab"} {
		if got := said(id); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
