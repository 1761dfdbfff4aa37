"""How the bundled network was made: losses, the training loop, and the held-out figures."""
