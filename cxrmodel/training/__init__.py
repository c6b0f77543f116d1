"""Loops that survive a kill: the autoencoder, its latents, the classifier."""
