package sqstest

import (
	"context"
	"net"
	"syscall"
)

// connectionKey is where a request's context has its connection, on a server that listens.
type connectionKey struct{}

func withConnection(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}

// isGone reports whether a request's client is. A context says so only once net/http has read the end of the connection,
// which a client that hung up does not wait for: the kernel has known since before the client's call returned.
func isGone(ctx context.Context) bool {
	if ctx.Err() != nil {
		return true
	}
	c, ok := ctx.Value(connectionKey{}).(syscall.Conn) // not so by RoundTrip, with TLS, and under somebody else's http.Server
	return ok && hungUp(c)
}
