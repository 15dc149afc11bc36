#!/bin/sh
# See that a C++ compiler and Python's headers are here, for the simulated NPU: install_compiler.sh PYTHON
# Where apt may be used it installs them; where it may not, the tests that need them skip and say so.
set -eu
python=$1
wanted=""

command -v "${CXX:-g++}" >/dev/null 2>&1 || command -v c++ >/dev/null 2>&1 || wanted="g++"
headers=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"])')
if [ ! -f "$headers/Python.h" ]; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    wanted="$wanted python$version-dev"
fi
[ -n "$wanted" ] || exit 0

if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing $wanted"
    # shellcheck disable=SC2086 - several packages
    if apt-get install -y -qq $wanted >/dev/null 2>&1 ||
        { apt-get update -qq >/dev/null 2>&1 && apt-get install -y -qq $wanted >/dev/null 2>&1; }; then
        exit 0
    fi
fi
echo "no $wanted here: tests on the simulated NPU will be skipped. Install:" apt-get install $wanted
