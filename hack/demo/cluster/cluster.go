// Package cluster runs a Kubernetes control plane (etcd, kube-apiserver, kube-controller-manager,
// kube-scheduler) as ordinary processes on loopback, with everything it writes in one folder. It needs no
// root, no container runtime and no fixed port.
package cluster

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/replyqueue/replyqueue/hack/demo/process"
	"github.com/replyqueue/replyqueue/hack/freeport"
)

// Host is the address of everything: nothing is reachable from outside the machine.
const Host = "127.0.0.1"

// parts is how many programs make a control plane.
const parts = 4

// readyLimit is how long a control plane may take to become ready. Two busy cores need about 15 s.
const readyLimit = 3 * time.Minute

// Config says how to start a control plane.
type Config struct {
	// Bin is the folder that holds the programs.
	Bin string
	// Dir is an existing, empty folder for data, keys and logs.
	Dir string
	// APIServerOnly leaves controller manager and scheduler out, for tests that bind pods themselves.
	APIServerOnly bool
	// Restart starts a part that ends again after a second, as a kubelet does with a control plane's pods.
	// Once the control plane is ready, Ended then receives nothing.
	Restart bool
	// Say is called with each step, for the terminal; nil: silence.
	Say func(format string, args ...any)
}

// Cluster is a running control plane.
type Cluster struct {
	config    Config
	authority *authority
	port      int

	mu      sync.Mutex
	parts   []*process.Process
	ready   bool
	stopped chan struct{} // closed by Stop
	ended   chan error
}

// Start starts a control plane and blocks until it is ready, or ctx ends, or a part of it exits. On error
// nothing is left running.
func Start(ctx context.Context, config Config) (*Cluster, error) {
	if config.Say == nil {
		config.Say = func(string, ...any) {}
	}
	c := &Cluster{config: config, stopped: make(chan struct{}), ended: make(chan error, parts)}
	if err := c.start(ctx); err != nil {
		c.Stop()
		return nil, err
	}
	c.mu.Lock()
	c.ready = true
	c.mu.Unlock()
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	for _, d := range []string{"pki", "etcd", "logs"} {
		if err := os.MkdirAll(c.path(d), 0o700); err != nil {
			return err
		}
	}
	var ports [3]int
	for i := range ports {
		port, err := freeport.Loopback()
		if err != nil {
			return err
		}
		ports[i] = port
	}
	c.port = ports[0]
	if err := c.keys(); err != nil {
		return err
	}

	etcdURL := fmt.Sprintf("http://%s:%d", Host, ports[1])
	peerURL := fmt.Sprintf("http://%s:%d", Host, ports[2])
	err := c.run("etcd", "--data-dir="+c.path("etcd"), "--listen-client-urls="+etcdURL, "--advertise-client-urls="+etcdURL,
		"--listen-peer-urls="+peerURL, "--initial-advertise-peer-urls="+peerURL, "--initial-cluster=default="+peerURL,
		"--unsafe-no-fsync", "--log-level=warn")
	if err != nil {
		return err
	}
	if err := c.await(ctx, "etcd", etcdURL+"/health", http.DefaultTransport); err != nil {
		return err
	}
	if err := c.run("kube-apiserver", c.apiserverFlags(etcdURL)...); err != nil {
		return err
	}
	transport, err := c.adminTransport()
	if err != nil {
		return err
	}
	if err := c.await(ctx, "kube-apiserver", c.URL()+"/readyz", transport); err != nil {
		return err
	}
	if c.config.APIServerOnly {
		return nil
	}
	return c.controllers()
}

func (c *Cluster) keys() error {
	var err error
	if c.authority, err = newAuthority(c.path("pki")); err != nil {
		return err
	}
	names := []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	if err := c.authority.server("apiserver", names...); err != nil {
		return err
	}
	cert, key, err := c.authority.client(apiserverOnNodes, "system:masters")
	if err != nil {
		return err
	}
	if err := c.authority.write("apiserver-node", cert, key); err != nil {
		return err
	}
	if err := c.authority.server("node"); err != nil {
		return err
	}
	return serviceAccountKeys(c.path("pki/sa.key"), c.path("pki/sa.pub"))
}

func (c *Cluster) apiserverFlags(etcdURL string) []string {
	return []string{
		"--etcd-servers=" + etcdURL,
		"--bind-address=" + Host, "--secure-port=" + strconv.Itoa(c.port),
		// Pods here are processes on loopback. An Endpoints object may not name it, so nobody writes the
		// one of the service "kubernetes"; the node agent gives pods the real address instead.
		"--advertise-address=" + Host, "--endpoint-reconciler-type=none",
		"--tls-cert-file=" + c.path("pki/apiserver.crt"), "--tls-private-key-file=" + c.path("pki/apiserver.key"),
		"--client-ca-file=" + c.path("pki/ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + c.path("pki/sa.pub"), "--service-account-signing-key-file=" + c.path("pki/sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		// By which the API server asks the node for a container's output, and knows the node.
		"--kubelet-client-certificate=" + c.path("pki/apiserver-node.crt"), "--kubelet-client-key=" + c.path("pki/apiserver-node.key"),
		"--kubelet-certificate-authority=" + c.path("pki/ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--profiling=false",
	}
}

func (c *Cluster) controllers() error {
	kcm, scheduler := c.path("pki/kube-controller-manager.kubeconfig"), c.path("pki/kube-scheduler.kubeconfig")
	if err := c.Kubeconfig(kcm, "system:kube-controller-manager"); err != nil {
		return err
	}
	if err := c.Kubeconfig(scheduler, "system:kube-scheduler"); err != nil {
		return err
	}
	c.config.Say("kube-controller-manager and kube-scheduler started")
	return errors.Join(
		c.run("kube-controller-manager", "--kubeconfig="+kcm, "--use-service-account-credentials", "--leader-elect=false",
			"--service-account-private-key-file="+c.path("pki/sa.key"), "--root-ca-file="+c.path("pki/ca.crt"),
			"--secure-port=0", "--profiling=false"),
		c.run("kube-scheduler", "--kubeconfig="+scheduler, "--leader-elect=false", "--secure-port=0", "--profiling=false"),
	)
}

// run starts one part and watches that it goes on.
func (c *Cluster) run(name string, args ...string) error {
	p, err := c.launch(name, args)
	if err != nil {
		return err
	}
	go func() {
		for {
			err := fmt.Errorf("%s ended (%s); its last words:\n%s", name, p.Exit(), process.Tail(p.Log(), 8))
			if !c.mayRestart() {
				c.ended <- err
				return
			}
			c.config.Say("%s ended (%s) and is started again", name, p.Exit())
			if p, err = c.launch(name, args); err != nil {
				c.ended <- err
				return
			}
		}
	}()
	return nil
}

// launch starts a program, unless Stop has been called.
func (c *Cluster) launch(name string, args []string) (*process.Process, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.stopped:
		return nil, fmt.Errorf("start %s: %w", name, context.Canceled)
	default:
	}
	p, err := process.Start(process.Spec{
		Name: name, Path: filepath.Join(c.config.Bin, name), Args: args, Dir: c.config.Dir, Log: c.path("logs/" + name + ".log"),
	})
	if err == nil {
		c.parts = append(c.parts, p)
	}
	return p, err
}

// mayRestart waits for the pause before a restart. It returns false when there is to be none.
func (c *Cluster) mayRestart() bool {
	c.mu.Lock()
	may := c.config.Restart && c.ready
	c.mu.Unlock()
	if !may {
		return false
	}
	t := time.NewTimer(time.Second)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.stopped:
		return false
	}
}

// await polls url until it answers 200.
func (c *Cluster) await(ctx context.Context, name, url string, transport http.RoundTripper) error {
	client := &http.Client{Transport: transport, Timeout: 5 * time.Second}
	began := time.Now()
	limit := time.NewTimer(readyLimit)
	defer limit.Stop()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	said := began
	for {
		if ready(ctx, client, url) {
			c.config.Say("%s ready after %.1f s", name, time.Since(began).Seconds())
			return nil
		}
		if time.Since(said) > 10*time.Second {
			said = time.Now()
			c.config.Say("waiting for %s (%.0f s)", name, time.Since(began).Seconds())
		}
		select {
		case <-tick.C:
		case err := <-c.ended:
			return err
		case <-limit.C:
			return fmt.Errorf("%s was not ready after %s; the end of its log:\n%s",
				name, readyLimit, process.Tail(c.path("logs/"+name+".log"), 8))
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func ready(ctx context.Context, client *http.Client, url string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(request)
	if err != nil {
		return false
	}
	_ = answer.Body.Close()
	return answer.StatusCode == http.StatusOK
}

func (c *Cluster) adminTransport() (http.RoundTripper, error) {
	cert, key, err := c.authority.client("demo-admin", "system:masters")
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("admin certificate: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(c.authority.cert)
	return &http.Transport{TLSClientConfig: &tls.Config{
		Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12,
	}}, nil
}

// Stop ends every part, the last one started first, and blocks until they have ended. It does not remove
// the folder.
func (c *Cluster) Stop() {
	c.mu.Lock()
	parts := c.parts
	c.parts = nil
	select {
	case <-c.stopped:
	default:
		close(c.stopped)
	}
	c.mu.Unlock()
	for i := len(parts) - 1; i >= 0; i-- {
		parts[i].Stop(0) // Nothing is kept: no part has anything to save.
	}
}

// Ended receives an error when a part of the control plane exits, also by Stop.
func (c *Cluster) Ended() <-chan error { return c.ended }

// URL is the API server's address.
func (c *Cluster) URL() string { return fmt.Sprintf("https://%s:%d", Host, c.port) }

// Port is the API server's.
func (c *Cluster) Port() int { return c.port }

// CA is the certificate, in PEM, by which clients know the API server.
func (c *Cluster) CA() []byte { return c.authority.pem }

// Log is the file that a part writes to: "kube-apiserver", "etcd" and so on.
func (c *Cluster) Log(part string) string { return c.path("logs/" + part + ".log") }

func (c *Cluster) path(name string) string {
	return filepath.Join(c.config.Dir, filepath.FromSlash(name))
}
