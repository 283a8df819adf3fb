package rpcenv

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// serviceAccount is the folder with a pod's token and the API server's CA. Both rotate, so both are
// read again for every use.
type serviceAccount string

func (s serviceAccount) token() (string, error) {
	b, err := os.ReadFile(filepath.Join(string(s), "token"))
	if err != nil {
		return "", fmt.Errorf("service account token: %w; mount one, or annotate the pod replyqueue.dev/heartbeat=lease", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// podUID reads the pod's UID from the claims of its token, "" when there is none. The claims are not
// verified: they only name the Lease to ask for, and the API server verifies the token.
func (s serviceAccount) podUID() string {
	token, err := s.token()
	if err != nil {
		return ""
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return ""
	}
	var claims struct {
		Kubernetes struct {
			Pod struct {
				UID string `json:"uid"`
			} `json:"pod"`
		} `json:"kubernetes.io"`
	}
	if json.Unmarshal(b, &claims) != nil {
		return ""
	}
	return claims.Kubernetes.Pod.UID
}

// apiClient talks to the API server with the CA that the folder holds at the time.
type apiClient struct {
	account serviceAccount
	ca      []byte
	client  *http.Client
}

// apiDialTimeout bounds a connection to the API server.
const apiDialTimeout = 5 * time.Second

// do sends r with the current token. It is not safe for concurrent use.
func (c *apiClient) do(r *http.Request) (*http.Response, error) {
	token, err := c.account.token()
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(filepath.Join(string(c.account), "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("CA of the API server: %w", err)
	}
	if c.client == nil || !bytes.Equal(ca, c.ca) {
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(ca) {
			return nil, fmt.Errorf("no certificate in %s", filepath.Join(string(c.account), "ca.crt"))
		}
		c.close()
		c.ca = ca
		c.client = &http.Client{Transport: &http.Transport{
			// Not HTTP/2: there a request that is given up ends its stream only, and all that follow would go onto a
			// connection whose other end is gone without a word, for as long as the kernel keeps it.
			Protocols:           http1(),
			DialContext:         (&net.Dialer{Timeout: apiDialTimeout}).DialContext,
			TLSHandshakeTimeout: apiDialTimeout,
			TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			MaxIdleConns:        1,
			IdleConnTimeout:     90 * time.Second,
		}}
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return c.client.Do(r)
}

func http1() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	return p
}

func (c *apiClient) close() {
	if c.client != nil {
		c.client.CloseIdleConnections()
	}
}
