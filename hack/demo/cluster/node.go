package cluster

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// apiserverOnNodes is who the API server is on a node.
const apiserverOnNodes = "kube-apiserver-kubelet-client"

// ListenAsNode listens on a free loopback port, by TLS, for the API server of this cluster and for nobody else.
func (c *Cluster) ListenAsNode() (net.Listener, error) {
	pair, err := tls.LoadX509KeyPair(c.path("pki/node.crt"), c.path("pki/node.key"))
	if err != nil {
		return nil, fmt.Errorf("certificate of the node: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c.authority.cert)
	l, err := tls.Listen("tcp", net.JoinHostPort(Host, "0"), &tls.Config{
		Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12,
		VerifyConnection: func(s tls.ConnectionState) error {
			if s.PeerCertificates[0].Subject.CommonName != apiserverOnNodes {
				return errors.New("only the API server may ask a node")
			}
			return nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("listen as node: %w", err)
	}
	return l, nil
}
