"""Data sets made on this machine: digits and scenes."""
