"""The only place that knows npu, cuda and cpu."""
