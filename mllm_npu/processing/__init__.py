"""Text and pictures to tokens and tiles and back; the same code for training, evaluation and serving."""
