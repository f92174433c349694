#!/bin/sh
# Builds bin/parley.oci.tar, an OCI image archive (OCI Image Format
# Specification 1.1) that holds one static binary and nothing else but the
# certificate authorities a policy repository over https needs. Load it with
# `podman load -i`, `skopeo copy oci-archive:...` or `ctr image import`.
# Usage: sh deploy/image.sh VERSION [OUT]
set -eu
version=${1:-dev}
out=${2:-bin/parley.oci.tar}
go=${GO:-go}
arch=$($go env GOARCH)
mkdir -p "$(dirname "$out")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

CGO_ENABLED=0 $go build -trimpath -ldflags "-s -w -X main.version=$version" -o "$work/root/platform" ./cmd/platform
mkdir -p "$work/root/data" "$work/root/etc/ssl/certs" "$work/root/tmp" "$work/oci/blobs/sha256"
chmod 1777 "$work/root/tmp" && chmod 0777 "$work/root/data"
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then
	cp /etc/ssl/certs/ca-certificates.crt "$work/root/etc/ssl/certs/"
fi

# put FILE: moves a blob to its place and prints its digest.
put() {
	digest=$(sha256sum "$1" | cut -d' ' -f1)
	mv "$1" "$work/oci/blobs/sha256/$digest"
	printf '%s' "$digest"
}
size() { wc -c <"$1" | tr -d ' '; }

tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work/root" -cf "$work/layer.tar" .
diff_id=$(sha256sum "$work/layer.tar" | cut -d' ' -f1)
gzip -n -9 <"$work/layer.tar" >"$work/layer.tgz"
layer_size=$(size "$work/layer.tgz")
layer=$(put "$work/layer.tgz")

cat >"$work/config.json" <<JSON
{"architecture":"$arch","os":"linux","config":{"User":"65532:65532","Entrypoint":["/platform"],"Cmd":["run"],"WorkingDir":"/data","Env":["PARLEY_DATA_DIR=/data","PARLEY_LISTEN=0.0.0.0:8080","PARLEY_TCP_LISTEN=0.0.0.0:7070"],"ExposedPorts":{"8080/tcp":{},"7070/tcp":{}},"Volumes":{"/data":{}},"StopSignal":"SIGTERM","Labels":{"org.opencontainers.image.title":"parley","org.opencontainers.image.version":"$version"}},"rootfs":{"type":"layers","diff_ids":["sha256:$diff_id"]}}
JSON
config_size=$(size "$work/config.json")
config=$(put "$work/config.json")

cat >"$work/manifest.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$config_size},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$layer_size}]}
JSON
manifest_size=$(size "$work/manifest.json")
manifest=$(put "$work/manifest.json")

printf '{"imageLayoutVersion":"1.0.0"}' >"$work/oci/oci-layout"
cat >"$work/oci/index.json" <<JSON
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$manifest_size,"platform":{"architecture":"$arch","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"parley:$version"}}]}
JSON
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work/oci" -cf "$out" blobs index.json oci-layout

echo "binary   $(size "$work/root/platform") bytes, static"
echo "archive  $(size "$out") bytes, $out"
