"""What runs, studies and searches found, as the models that their files are written and read by."""
