package sqstest_test

import (
	"io"
	"net/http"
)

// socketClient is an HTTP client with the workaround for the request body that the SDK closes too early.
func socketClient() *http.Client {
	return &http.Client{Transport: plainBodies{&http.Transport{MaxIdleConnsPerHost: 64, DisableKeepAlives: false}}}
}

// plainBodies hides the request body's WriterTo, which lets net/http tear down the connection under an answer that is
// still being read once smithy has closed the body.
type plainBodies struct{ next *http.Transport }

func (p plainBodies) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Body != nil {
		r = r.Clone(r.Context())
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return p.next.RoundTrip(r)
}

func (p plainBodies) CloseIdleConnections() { p.next.CloseIdleConnections() }
