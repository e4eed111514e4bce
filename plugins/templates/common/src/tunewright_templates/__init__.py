"""Templates that belong to no vendor: default, chatml, alpaca, vicuna, empty, auto."""
