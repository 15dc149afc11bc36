#!/bin/sh
# See that a Chromium is here, in which the web page is tested.
# Where apt may be used it installs one; where it may not, the tests that need it skip and say so.
set -eu

for name in chromium chromium-browser google-chrome; do
    command -v "$name" >/dev/null 2>&1 && exit 0
done
if command -v apt-get >/dev/null 2>&1 && [ "$(id -u)" = 0 ]; then
    echo "installing chromium"
    if apt-get install -y -qq chromium >/dev/null 2>&1 ||
        { apt-get update -qq >/dev/null 2>&1 && apt-get install -y -qq chromium >/dev/null 2>&1; }; then
        exit 0
    fi
fi
echo "no chromium here: tests of the web page in a browser will be skipped. Install: apt-get install chromium"
