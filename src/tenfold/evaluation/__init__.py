"""What a trained model does on images that it has not seen. Knows nothing of the training."""
