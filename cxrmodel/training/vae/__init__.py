"""The autoencoder's training: fit, loop, step, state, validation."""
