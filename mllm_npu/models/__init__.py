"""Parts of a multimodal model and the two architectures that put them together."""
