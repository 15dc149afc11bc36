"""Compose, train and evaluate modular multimodal language models on Ascend NPU, CUDA and CPU."""

import logging

__version__ = "0.1.0"

# Where torchao is installed, transformers and diffusers import it at start; it warns of kernels for
# devices that are not there, and they of what they would have from an older one.
logging.getLogger("torchao").setLevel(logging.ERROR)
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
logging.getLogger("diffusers.quantizers.torchao.torchao_quantizer").setLevel(logging.ERROR)
