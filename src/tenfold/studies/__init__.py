"""Many runs of one recipe: values and seeds crossed, each trial resumable."""
