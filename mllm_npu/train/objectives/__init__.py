"""What a stage minimises: vision encoder, multimodal model, image decoder."""
