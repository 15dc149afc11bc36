#!/bin/sh
# Make a virtual environment with the first Python that is new enough: make_venv.sh FOLDER
set -eu
folder=$1
seen="" without_venv=""

for python in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3; do
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    seen="$seen $python($version)"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || continue
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        without_venv=$version
        continue
    fi
    if ! "$python" -m venv "$folder"; then
        rm -rf "$folder"
        without_venv=$version
        continue
    fi
    echo "made $folder with $python ($version)"
    exit 0
done

if [ -n "$without_venv" ]; then
    echo "error: $folder was to be made, Python $without_venv is here without its venv module." \
        "Install it: apt install python$without_venv-venv" >&2
else
    echo "error: Python 3.11 or newer is needed, found:${seen:- none}." \
        "Install it (apt install python3 python3-venv), or name one: make install PYTHON=/path/to/python3.12" >&2
fi
exit 2
