"""Compose, train and evaluate modular multimodal language models on Ascend NPU, CUDA and CPU."""

__version__ = "0.1.0"
