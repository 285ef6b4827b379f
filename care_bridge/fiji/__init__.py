"""The Fiji side: the only folder that knows Java or TensorFlow 1.x, always through worker processes."""
