"""The Keras lane: networks, their training and the folders that hold them."""
