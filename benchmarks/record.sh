#!/bin/sh
# Run a benchmark and keep what it printed: benchmarks/record.sh archive [--quick], with python on PATH.
set -eu
cd "$(dirname "$0")/.."
name=$1
shift
changed=$(git status --porcelain -- scdiff_data "benchmarks/$name.py" benchmarks/fixtures)
commit=$(git rev-parse --short HEAD)${changed:+, with changes}
processor=$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
memory=$(awk '/MemTotal/ {printf "%.0f GB", $2 / 1e6}' /proc/meminfo)
output=$(python "benchmarks/$name.py" "$@")
mkdir -p benchmarks/results
cat > "benchmarks/results/$name.md" <<REPORT
# $name

- date: $(date -u +%F)
- commit: $commit
- hardware: $(nproc) cores of ${processor:-an unnamed processor}, $memory of memory, $(python -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")')
- versions: $(python -c 'from importlib.metadata import version
print(*(f"{name} {version(name)}" for name in ("torch", "numpy", "h5py", "scanpy")), sep=", ")')
- command: \`python benchmarks/$name.py${*:+ $*}\`

\`\`\`
$output
\`\`\`
REPORT
