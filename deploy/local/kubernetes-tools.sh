#!/usr/bin/env bash
# Build helm and kubeconform from source into .local/bin, for the tests of the chart. Does nothing when they are there.
set -euo pipefail

helm_version=v3.19.2
kubeconform_version=v0.7.0
kubernetes_minor=34
repo=$(cd "$(dirname "$0")/../.." && pwd)
bin="$repo/.local/bin"
done_mark="$bin/.kubernetes-tools-$helm_version-$kubeconform_version"

if [[ -x $bin/helm && -x $bin/kubeconform && -f $done_mark ]]; then
    exit 0
fi
go=$(command -v go || echo /usr/local/go/bin/go)
if ! command -v "$go" >/dev/null; then
    echo "kubernetes-tools: go is missing. Install Go 1.24 or later, or put helm 3 and kubeconform on the path" >&2
    exit 1
fi

mkdir -p "$bin"
# helm takes its own version, and the Kubernetes version that `helm lint` assumes, from the linker.
helm=helm.sh/helm/v3
flags="-s -w -X $helm/internal/version.version=$helm_version"
flags+=" -X $helm/pkg/lint/rules.k8sVersionMajor=1 -X $helm/pkg/lint/rules.k8sVersionMinor=$kubernetes_minor"
flags+=" -X $helm/pkg/chartutil.k8sVersionMajor=1 -X $helm/pkg/chartutil.k8sVersionMinor=$kubernetes_minor"
echo "kubernetes-tools: building helm $helm_version and kubeconform $kubeconform_version into .local/bin" >&2
GOBIN="$bin" "$go" install -ldflags "$flags" "$helm/cmd/helm@$helm_version"
GOBIN="$bin" "$go" install -ldflags "-s -w" "github.com/yannh/kubeconform/cmd/kubeconform@$kubeconform_version"
touch "$done_mark"
