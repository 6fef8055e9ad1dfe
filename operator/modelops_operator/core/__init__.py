"""What should be done, decided without I/O, clock or randomness."""
