"""The autoencoder's training: fit, loop, step, state, objective, validation."""
