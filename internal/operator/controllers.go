package operator

import (
	"fmt"

	ctrl "sigs.k8s.io/controller-runtime"
)

// dependencies are what the controllers share.
type dependencies struct {
	Identity Identity
	// PolicyInPlace reports whether heartbeats are protected; without, nothing is closed as idle.
	PolicyInPlace func() bool
}

// controller is anything that registers itself with a manager.
type controller interface {
	SetupWithManager(mgr ctrl.Manager) error
}

// setupControllers registers every controller. Adding one is a line in the list.
func setupControllers(mgr ctrl.Manager, _ dependencies) error {
	for _, c := range []controller{} {
		if err := c.SetupWithManager(mgr); err != nil {
			return fmt.Errorf("set up %T: %w", c, err)
		}
	}
	return nil
}
