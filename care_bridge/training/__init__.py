"""The Keras lane: networks, their training and the folders that hold them."""

from care_bridge.training.startup import check_backend

check_backend()
