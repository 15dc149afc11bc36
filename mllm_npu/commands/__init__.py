"""The commands people type, one file per kind of work; `mllm_npu.cli` puts them together."""
