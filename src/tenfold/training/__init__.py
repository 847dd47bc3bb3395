"""From a recipe and pictures to trained weights, exactly resumable."""
