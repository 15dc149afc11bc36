#!/bin/sh
# Install the pinned torch, the CPU build where no accelerator is: install_torch.sh PYTHON VERSION [INDEX]
set -eu
python=$1 version=$2 index=${3:-}

install() {
    "$python" -m pip install -qq --disable-pip-version-check -c constraints.txt \
        ${index:+--extra-index-url "$index"} "$1"
}

accelerated() {
    command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU
}

echo "installing torch $version (some minutes on a first install)"
if [ "$(uname -s)" = Linux ] && ! accelerated; then
    # +cpu is found only where an index or a folder of wheels has it; the plain build works too, and is larger.
    if ! install "torch==$version+cpu" 2>/dev/null; then
        echo "no CPU build of torch $version in the package index; taking the index's own build." \
            "A CPU index can be given: make install TORCH_INDEX=..."
        install "torch==$version"
    fi
else
    install "torch==$version"
fi
