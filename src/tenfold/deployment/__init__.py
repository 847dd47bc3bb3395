"""From a run to a file that runs anywhere, and to a service.

from tenfold.deployment.predictor import Predictor  # NumPy, Pillow and ONNX Runtime alone
"""
