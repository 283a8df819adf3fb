// Package worlds has the whole operator live through degraded worlds: an API server that cannot be reached, an etcd that is
// restored from a backup, namespaces and kinds that are deleted. Real are etcd and the API server, Kubernetes' own namespace
// controller and the operator under leader election's rules; SQS is sqstest. Kubelets are played, since no node is
// needed to be without one.
//
// Worlds that need a clock of their own are in internal/controller (worlds_test.go); docs/operations.md has the table of
// all of them.
package worlds
