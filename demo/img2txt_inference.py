"""Ask a trained model about a picture: python demo/img2txt_inference.py [PICTURE [QUESTION]]."""

import sys
from pathlib import Path

from mllm_npu.cli import main

EXAMPLE = (str(Path(__file__).with_name("seven.png")), "Which digit is this?")
picture, question = (*sys.argv[1:3], *EXAMPLE[len(sys.argv) - 1 :])

sys.exit(main(["generate", "runs/digits", question, "--image", picture]))
