"""What commands show: on a terminal, in a pipe and as JSON."""
