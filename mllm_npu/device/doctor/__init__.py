"""Examine the machine and the installation; each check says what is and what to do about it."""
