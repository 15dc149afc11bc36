"""Text and pictures to tokens and tiles and back, the same way for every use."""
