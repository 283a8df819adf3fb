package main

import (
	"context"
	"errors"
	"path/filepath"
)

// stayUp deploys the samples and leaves everything running until ctx ends.
func stayUp(ctx context.Context, s *stage) error {
	t := &story{stage: s, meter: newMeter(filepath.Join(s.dir, "node", "logs"))}
	reading, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t.meter.run(reading)
	}()
	err := t.begin(ctx)
	stop()
	<-done
	if err != nil {
		return err
	}
	s.out.step("Yours, until Ctrl-C")
	s.out.say("export KUBECONFIG=%s", s.kubeconfig())
	s.out.say("alias kubectl=%s", filepath.Join(s.k8s, "kubectl"))
	s.out.say("")
	s.out.number("queues in SQS, in a browser", "%s/", s.sqs.url)
	s.out.number("the same as JSON", "%s/_sqstest/state", s.sqs.url)
	s.out.number("containers' output", "%s", s.relative(filepath.Join(s.dir, "node", "logs")))
	s.out.number("operator's log", "%s", s.relative(s.operator.file("operator.log")))
	s.out.number("logs of the control plane", "%s", s.relative(filepath.Join(s.dir, "controlplane", "logs")))
	s.out.say("")
	s.out.say("Try:  kubectl get rch,rph,rq,qp,pods -n %s", namespace)
	s.out.say("      kubectl explain requestchannel.spec")
	s.out.say("      kubectl -n %s scale deployment/requester --replicas=6", namespace)
	s.out.say("      kubectl -n %s get pods -o custom-columns=POD:.metadata.name,PROCESS:.status.containerStatuses[0].containerID", namespace)
	s.out.say("      kill -9 <that process>; kill -STOP <that process>; kubectl -n %s delete pod <one>", namespace)
	s.out.say("What ends of the control plane or the operator is started again.")
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.As(err, new(interruption)) {
		return err
	}
	return nil
}
