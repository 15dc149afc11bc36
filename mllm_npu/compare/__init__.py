"""Run the same configuration and data on two sides and name the first module that differs."""
