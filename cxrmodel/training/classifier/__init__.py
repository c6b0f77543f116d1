"""The classifier's training on the latents."""
