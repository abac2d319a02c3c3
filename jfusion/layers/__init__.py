"""Convolution, initialisers and network parts that two systems or more share."""
