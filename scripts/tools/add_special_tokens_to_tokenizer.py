"""Add the tokens of pictures, places and boxes to a tokenizer: SOURCE --out TARGET."""

from __future__ import annotations

import sys

from mllm_npu.cli import main

if __name__ == "__main__":
    sys.exit(main(["tokenizer", "add-tokens", *sys.argv[1:]]))
