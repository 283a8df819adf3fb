# The operator's image and, by --target, those of the demo's programs (`make docker-build` makes all).
# Static binaries; no shell, no root.

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ENV CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH GOFLAGS="-trimpath -ldflags=-w"
RUN go build -o /out/manager ./cmd && \
    go build -o /out/demo-requester ./examples/requester && \
    go build -o /out/demo-responder ./examples/responder

FROM gcr.io/distroless/static:nonroot AS demo-requester
COPY --from=build /out/demo-requester /
USER 65532:65532
ENTRYPOINT ["/demo-requester"]

FROM gcr.io/distroless/static:nonroot AS demo-responder
COPY --from=build /out/demo-responder /
USER 65532:65532
ENTRYPOINT ["/demo-responder"]

FROM gcr.io/distroless/static:nonroot AS operator
COPY --from=build /out/manager /
USER 65532:65532
ENTRYPOINT ["/manager"]
