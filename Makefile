# Everything here needs Go and make, and nothing else: tools and the control plane are built from Go
# modules into bin/ the first time they are wanted. `make help` lists the targets.

GO ?= go
GOWORK ?= off
export GOWORK

BIN   := bin
TOOLS := $(BIN)/tools
K8S   := $(BIN)/k8s

# envtest finds etcd and kube-apiserver here.
export KUBEBUILDER_ASSETS := $(CURDIR)/$(K8S)

CONTROLLER_GEN := $(TOOLS)/controller-gen
CRD_REF_DOCS   := $(TOOLS)/crd-ref-docs
GOLANGCI_LINT  := $(TOOLS)/golangci-lint
KUBECTL        ?= $(K8S)/kubectl

# Images. IMG is the operator's.
REGISTRY       ?= ghcr.io/replyqueue
TAG            ?= v0.1.0
IMG            ?= $(REGISTRY)/operator:$(TAG)
CONTAINER_TOOL ?= docker

# What `make test` and `make fuzz` run on, and for how long.
PKG       ?= ./...
TESTFLAGS ?= -timeout=30m
FUZZTIME  ?= 20s
FUZZTOTAL ?= 0

.DELETE_ON_ERROR:

.PHONY: all
all: build

##@ General

.PHONY: help
help: ## List the targets.
	@printf 'Usage: make <target>\n'
	@while IFS= read -r line; do \
	  case "$$line" in \
	    '##@ '*) printf '\n%s\n' "$${line#??? }" ;; \
	    [a-z]*:*'## '*) printf '  %-17s %s\n' "$${line%%:*}" "$${line#*## }" ;; \
	  esac; \
	done < Makefile

.PHONY: demo
demo: ## Watch the whole idea work: real API server, operator and programs, SQS in process.
	$(GO) run ./hack/demo

.PHONY: demo-up
demo-up: ## The same, left running with a KUBECONFIG to play with, until Ctrl-C.
	@# Not go run, which fails when it is interrupted, though Ctrl-C is how this ends.
	$(GO) build -o $(BIN)/demo/demo ./hack/demo
	$(BIN)/demo/demo --up

##@ Development

.PHONY: generate
generate: $(CONTROLLER_GEN) ## Generate DeepCopy methods.
	$(CONTROLLER_GEN) object paths=./api/...

.PHONY: manifests
manifests: $(CONTROLLER_GEN) ## Generate CRDs, the operator's ClusterRole and the webhook configuration from markers.
	$(CONTROLLER_GEN) crd rbac:roleName=replyqueue-manager webhook output:crd:artifacts:config=config/crd/bases \
	  $(patsubst %,paths=./%/...,$(wildcard api internal cmd))

.PHONY: api-docs
api-docs: $(CRD_REF_DOCS) ## Generate docs/reference/api.md from the kinds.
	@mkdir -p docs/reference
	$(CRD_REF_DOCS) --log-level=ERROR --source-path=api --config=hack/api-docs.yaml --renderer=markdown --output-path=docs/reference/api.md

.PHONY: fmt
fmt: $(GOLANGCI_LINT) ## Format the code.
	$(GOLANGCI_LINT) fmt

.PHONY: vet
vet: ## Run go vet.
	$(GO) vet ./...

.PHONY: lint
lint: $(GOLANGCI_LINT) ## Lint code, architecture (depguard) and API (kube-api-linter).
	$(GOLANGCI_LINT) run

.PHONY: lint-fix
lint-fix: $(GOLANGCI_LINT) ## Lint, and fix what can be fixed by itself.
	$(GOLANGCI_LINT) run --fix

.PHONY: verify
verify: $(CONTROLLER_GEN) $(CRD_REF_DOCS) $(GOLANGCI_LINT) controlplane ## Prove that generated files, formatting and go.mod are up to date.
	$(GO) run ./hack/verify $(MAKE) --no-print-directory update

.PHONY: update
update: generate manifests api-docs build-installer fmt tidy ## Bring everything up to date that verify proves.

.PHONY: tidy
tidy: ## Tidy go.mod and go.sum.
	$(GO) mod tidy

##@ Tests

.PHONY: test
test: controlplane ## Run all tests, with the race detector where there is a C compiler (PKG=./... TESTFLAGS=).
	$(GO) run ./hack/testreport -counts $(BIN)/test-counts -- $(TESTFLAGS) $(PKG)

.PHONY: fuzz
fuzz: ## Run every Fuzz function for FUZZTIME=20s, all together at most FUZZTOTAL (0: no bound).
	$(GO) run ./hack/fuzz -each $(FUZZTIME) -total $(FUZZTOTAL)

KILLS ?= 50
PODS  ?= 200

STEPS ?= 200000
SEED  ?= 1

.PHONY: model
model: controlplane ## Put the lifecycle to STEPS=200000 random actions from SEED=1, and to deliberate mistakes that it must notice (half an hour).
	@mkdir -p $(BIN)
	$(GO) test ./test/model -count=1 -timeout=15m -run 'TestScriptsOnAnAPIServer$$' -samples=15
	$(GO) test ./test/model -count=1 -timeout=120m -run 'TestModel$$' -steps=$(STEPS) -seed=$(SEED) -mutants -report=$(CURDIR)/$(BIN)/model.txt
	@cat $(BIN)/model.txt

.PHONY: bench-heartbeats
bench-heartbeats: controlplane ## Measure what it costs to know of 10,000 heartbeats, by a watch and by lists (10 minutes).
	$(GO) build -o $(BIN)/failover/heartbeats ./hack/heartbeats
	$(BIN)/failover/heartbeats

.PHONY: failover
failover: controlplane ## Kill the leader KILLS=50 times while PODS=200 pods come and go (half an hour), and check every promise.
	$(GO) build -o $(BIN)/failover/failover ./hack/failover
	$(BIN)/failover/failover -kills $(KILLS) -pods $(PODS)

SERVERS ?= sqstest,moto,local-aws-sqs

.PHONY: conformance
conformance: ## Check what SQS does against SERVERS: ours, moto and local-aws-sqs where they can be had (minutes).
	@mkdir -p $(BIN)
	@rm -f $(BIN)/conformance.txt
	$(GO) test ./test/conformance -count=1 -timeout=20m -run Servers -servers=$(SERVERS) -report=$(CURDIR)/$(BIN)/conformance.txt; \
		status=$$?; cat $(BIN)/conformance.txt; exit $$status

# Those that must have crash points, in the order in which they are told.
CRASHPOINTS ?= channel,lifecycle,sweeper

.PHONY: crashpoints
crashpoints: controlplane ## Stop the operator after each single external call in turn, and count what was survived (minutes).
	$(GO) run ./hack/crashpoints -want $(CRASHPOINTS)

.PHONY: bench-sqstest
bench-sqstest: ## Measure pkg/sqstest: beside a constant server, by depth, and the memory of a million messages (minutes).
	$(GO) test ./pkg/sqstest -run - -bench Cycle -benchtime 25x
	$(GO) test ./pkg/sqstest -run - -bench WakeUp -benchtime 1000x
	$(GO) test ./pkg/sqstest -run - -bench Depth -benchtime 20000x
	$(GO) test ./cmd/sqstest -run - -bench Process -benchtime 1x

DURATION ?= 60s
SEED     ?= $(shell date +%s)

.PHONY: soak
soak: ## Run pkg/rpcclient through faults and kills for DURATION=60s with SEED=, and mutants of it that must be caught.
	$(GO) run ./test/soak -duration $(DURATION) -seed $(SEED)

.PHONY: bench-rpc
bench-rpc: ## Measure pkg/rpcclient beside a hand-written pipeline and a naive loop (BENCH=-quick: two minutes; all: half an hour; BENCH=-resume: go on with that).
	$(GO) run ./hack/benchrpc $(BENCH)

N ?= 2000

.PHONY: bench-channels
bench-channels: controlplane ## Apply N=2000 RequestChannels at once, and restart the operator: time, requests, writes (minutes).
	$(GO) run ./hack/benchchannels -n $(N) -controlplane $(K8S)

.PHONY: controlplane
controlplane: ## Get etcd, kube-apiserver, kubectl, ... into bin/k8s (cold: minutes; then nothing).
	@$(GO) run ./hack/controlplane -dir $(K8S)

##@ Build

.PHONY: build
build: export CGO_ENABLED = 0
build: ## Build static binaries: bin/manager, bin/sqstest and the demo's programs.
	$(GO) build -o $(BIN)/manager ./cmd
	$(GO) build -o $(BIN)/sqstest ./cmd/sqstest
	$(GO) build -o $(BIN)/demo-requester ./examples/requester
	$(GO) build -o $(BIN)/demo-responder ./examples/responder

.PHONY: docker-build
docker-build: ## Build the images of the operator and the demo's programs (needs Docker, or CONTAINER_TOOL=podman).
	$(CONTAINER_TOOL) build --target operator -t $(IMG) .
	$(CONTAINER_TOOL) build --target demo-requester -t $(REGISTRY)/demo-requester:$(TAG) .
	$(CONTAINER_TOOL) build --target demo-responder -t $(REGISTRY)/demo-responder:$(TAG) .

.PHONY: build-installer
build-installer: controlplane ## Write dist/install.yaml: CRDs, RBAC, policies and the operator in one file.
	@mkdir -p dist
	$(KUBECTL) kustomize config/default > $(BIN)/install.yaml
	@mv $(BIN)/install.yaml dist/install.yaml

##@ Deployment (into the cluster of your KUBECONFIG)

.PHONY: install
install: controlplane ## Install the CRDs.
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: controlplane ## Remove the CRDs, with every object of the kinds and its queue (the operator must run).
	$(KUBECTL) delete --ignore-not-found --timeout=5m -k config/crd

.PHONY: deploy
deploy: controlplane ## Install CRDs and operator.
	$(KUBECTL) apply --server-side -k config/default
	$(KUBECTL) --namespace replyqueue-system set image deployment/replyqueue-controller-manager manager=$(IMG)

.PHONY: undeploy
undeploy: uninstall ## Remove everything that deploy installed, the operator last, since it deletes the queues.
	$(KUBECTL) delete --ignore-not-found -k config/default

##@ Cleaning

.PHONY: clean
clean: ## Remove what was built (the Go caches stay).
	rm -rf $(BIN)

# Tools: built once, again when their pins change.

$(CONTROLLER_GEN): hack/tools/go.mod hack/tools/go.sum
	$(call tool,hack/tools,sigs.k8s.io/controller-tools/cmd/controller-gen)

$(CRD_REF_DOCS): hack/tools/go.mod hack/tools/go.sum
	$(call tool,hack/tools,github.com/elastic/crd-ref-docs)

# golangci-lint with the kube-api-linter compiled in.
$(GOLANGCI_LINT): hack/tools/lint/go.mod hack/tools/lint/go.sum
	$(call tool,hack/tools/lint,sigs.k8s.io/kube-api-linter/cmd/golangci-lint-kube-api-linter)

define tool
@echo "Building $(notdir $@) (once; pinned in $(1)/go.mod)"
@cd $(1) && $(GO) build -mod=readonly -trimpath -ldflags='-s -w' -o "$(CURDIR)/$@" $(2)
@touch $@
endef
