"""TensorFlow 1.x, headless ImageJ and a person's Fiji: the only folder that starts Java, in worker processes."""
