"""Let a trained model draw: python demo/txt2img_generation.py [PROMPT [PICTURE]]."""

import sys

from mllm_npu.cli import main

EXAMPLE = ("Draw a seven.", "picture.png")
prompt, picture = (*sys.argv[1:3], *EXAMPLE[len(sys.argv) - 1 :])

sys.exit(main(["generate", "runs/digits", prompt, "--out", picture]))
