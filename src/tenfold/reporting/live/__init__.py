"""A page that grows while runs go on, served to this machine alone."""
