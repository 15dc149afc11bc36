"""The compiled part, under the name it has in the real package."""
# ruff: noqa: N999 - that name

import sys

from torch_npu.extension import load

sys.modules[__name__] = load()
