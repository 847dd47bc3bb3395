"""How fast this machine is, how fast the networks run on it, and what an accuracy costs."""
