package cluster

import (
	"fmt"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Kubeconfig writes a kubeconfig into file with a client certificate for user in the groups given.
func (c *Cluster) Kubeconfig(file, user string, groups ...string) error {
	cert, key, err := c.authority.client(user, groups...)
	if err != nil {
		return err
	}
	return c.write(file, user, &clientcmdapi.AuthInfo{ClientCertificateData: cert, ClientKeyData: key})
}

// TokenKubeconfig writes a kubeconfig into file whose user presents the token that tokenFile holds. Clients
// read the token again about once a minute.
func (c *Cluster) TokenKubeconfig(file, user, tokenFile string) error {
	return c.write(file, user, &clientcmdapi.AuthInfo{TokenFile: tokenFile})
}

func (c *Cluster) write(file, user string, auth *clientcmdapi.AuthInfo) error {
	const name = "demo"
	k := clientcmdapi.NewConfig()
	k.Clusters[name] = &clientcmdapi.Cluster{Server: c.URL(), CertificateAuthorityData: c.authority.pem}
	k.AuthInfos[user] = auth
	k.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: user}
	k.CurrentContext = name
	if err := clientcmd.WriteToFile(*k, file); err != nil {
		return fmt.Errorf("kubeconfig of %s: %w", user, err)
	}
	return nil
}

// REST is a client configuration for user in the groups given, without client-side throttling: the API
// server's own priority and fairness is at work.
func (c *Cluster) REST(user string, groups ...string) (*rest.Config, error) {
	cert, key, err := c.authority.client(user, groups...)
	if err != nil {
		return nil, err
	}
	return &rest.Config{
		Host:            c.URL(),
		QPS:             -1,
		TLSClientConfig: rest.TLSClientConfig{CAData: c.authority.pem, CertData: cert, KeyData: key},
	}, nil
}

// Admin is a client configuration for a cluster administrator.
func (c *Cluster) Admin() (*rest.Config, error) { return c.REST("demo-admin", "system:masters") }

// Node is a client configuration for the node of that name, with a node's permissions and no more.
func (c *Cluster) Node(name string) (*rest.Config, error) {
	return c.REST("system:node:"+name, "system:nodes")
}
