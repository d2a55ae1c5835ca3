"""The FID network against the reference's outputs: published keys, features under all protocols, every block."""
