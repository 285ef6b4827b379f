"""Predictors of the Python side: Keras, ONNX Runtime, and a bundle run by TensorFlow 2."""
